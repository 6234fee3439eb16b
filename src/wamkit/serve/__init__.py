"""Serving a policy over websockets: the connection (server.py); protocols are given to it."""
