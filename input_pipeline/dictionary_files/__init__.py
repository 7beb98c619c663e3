"""Readers of bilingual dictionaries, and the ranking of translations."""
