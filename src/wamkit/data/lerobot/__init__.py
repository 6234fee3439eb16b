"""LeRobot datasets: v3.0 written and read, v2.0 and v2.1 read."""
