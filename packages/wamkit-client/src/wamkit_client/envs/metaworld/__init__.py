"""Meta-World: environment and scripted experts."""
