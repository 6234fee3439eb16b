"""What latent world models predict, measured on recorded trajectories: numbers, no pages and no commands."""
