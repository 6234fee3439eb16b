"""The protocols that clients of one port may speak; each message says by its keys which it is."""
