"""From a run directory to actions."""
