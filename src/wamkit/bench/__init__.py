"""What a query, a training step and an encoding cost on this machine: counted without data, and measured.

It stands above everything that it measures; only the command line knows it.
"""
