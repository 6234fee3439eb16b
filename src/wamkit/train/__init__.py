"""The training loop and what a run directory holds."""
