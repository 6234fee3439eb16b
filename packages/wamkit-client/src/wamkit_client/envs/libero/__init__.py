"""LIBERO: environment, tasks, scripted expert, installation, replay of recorded demonstrations."""
