"""The robot's side of wamkit. Knows NumPy and simulators, never torch."""

__version__ = "0.1.0"
