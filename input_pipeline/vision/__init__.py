"""Pictures, and the networks that turn them into regions."""
