"""Between the files of others and ours: released checkpoints, configs and latents, recordings in HDF5."""
