"""The commands behind `make quickstart`, `make rerank`, `make ablation`."""
