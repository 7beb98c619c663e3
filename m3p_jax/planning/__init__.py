"""A training step compiled for other machines, and counted."""
