"""Fast-WAM and its controlled variants (arXiv 2603.16666)."""
