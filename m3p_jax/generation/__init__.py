"""Captions that the model writes: the search for them, and their scores."""
