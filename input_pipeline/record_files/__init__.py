"""Prepared records, read into memory or row by row from the disk."""
