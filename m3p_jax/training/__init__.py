"""Around the training loop: its start, its data, its progress, its end."""
