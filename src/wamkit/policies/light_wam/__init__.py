"""Light-WAM (arXiv 2606.08242)."""
