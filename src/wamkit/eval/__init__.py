"""Closed-loop evaluation: which episodes are run, their results, and what a score is."""
