"""Simulators behind one contract (base.py)."""
