"""LaWAM (arXiv 2606.15768)."""
