"""Eager twins of the official implementations: the same work in the same order, for timing and counting beside ours.

Written from the specifications; each is proven equal to our plain policy, with the same weights, in its test.
"""
