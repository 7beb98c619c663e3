"""The commands behind `make quickstart`, `make rerank`, `make ablation`."""

import os

# TensorFlow reads it when it is imported, and says what concerns nobody here.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
