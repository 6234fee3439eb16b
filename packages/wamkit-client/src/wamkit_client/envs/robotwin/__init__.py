"""RoboTwin 2.0: tasks and conventions, and the adapter that runs in its own Python."""
