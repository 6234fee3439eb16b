"""Work on a Ray cluster (extra `ray`): what is imported where --ray is given, and nowhere else."""
