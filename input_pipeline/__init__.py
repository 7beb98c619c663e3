"""From packages and files to batches; the only part that needs TensorFlow."""

import os

from input_pipeline import console

# TensorFlow reads them when it is imported, and says what concerns nobody here.
if os.environ.get('TF_CPP_MIN_LOG_LEVEL', '1') == '1':  # As JAX sets it.
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
# Of a file in a bucket what is asked for is read. Its default reads ahead by
# 64 MiB, which is 64 MiB of memory and network for each record by its number.
os.environ.setdefault('GCS_READ_CACHE_BLOCK_SIZE_MB', '0')
console.quieten_tensorflow()
