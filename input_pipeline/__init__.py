"""From packages and files to batches; the only part that needs TensorFlow."""

import os

# TensorFlow reads them when it is imported, and says what concerns nobody here.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
