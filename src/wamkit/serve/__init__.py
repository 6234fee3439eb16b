"""Policies behind a websocket: one port for all (server.py), who may come in (doors.py), what is served (served.py), in
which order queries are answered (scheduler.py), what clients' names mean (layouts.py), which protocols they speak
(dialects/)."""
