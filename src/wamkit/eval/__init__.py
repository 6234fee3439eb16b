"""Evaluation in closed loop: which episodes, what came of them, what a score is."""
