"""Packages of data and weights, by the clients of their registries."""
