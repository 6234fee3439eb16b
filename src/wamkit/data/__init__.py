"""From LeRobot files on disk to batches: windows, canvases, statistics, the latent cache."""
