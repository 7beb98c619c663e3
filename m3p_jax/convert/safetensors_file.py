"""Files of safetensors, read and written one tensor at a time.

The package's own functions map or copy the whole file; the format is a JSON
header and the numbers.
Source: the format's description in the safetensors package.
"""

from collections.abc import Mapping
import json
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from input_pipeline import errors
from input_pipeline.tensor_files import stored_array

Tensors = dict[str, stored_array.StoredArray]
_DTYPES = {name: np.dtype(dtype) for name, dtype in {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16,
    'BF16': ml_dtypes.bfloat16, 'I64': np.int64, 'I32': np.int32,
    'I16': np.int16, 'I8': np.int8, 'U8': np.uint8, 'BOOL': np.bool_}.items()}
_METADATA = '__metadata__'


def read(path: pathlib.Path) -> Tensors:
  """Returns a file's tensors, whose numbers stay in it.

  Raises:
    UserError: the file is damaged, or of a dtype that NumPy lacks.
  """
  import safetensors  # Only those who convert need it.
  try:
    # It checks the header: sizes, no gap, no overlap.
    with safetensors.safe_open(path, framework='numpy'):
      pass
  except (safetensors.SafetensorError, ValueError) as error:
    raise errors.UserError(
        f'{path}: damaged or no safetensors file: {error}') from error
  with path.open('rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    header = json.loads(file.read(length))
  header.pop(_METADATA, None)
  tensors: Tensors = {}
  for key, entry in header.items():
    if entry['dtype'] not in _DTYPES:
      raise errors.UserError(
          f'{path}: {key!r} has dtype {entry["dtype"]}; allowed: '
          f'{", ".join(_DTYPES)}')
    shape = tuple(entry['shape'])
    tensors[key] = stored_array.StoredArray.rows(stored_array.Storage(
        path, _DTYPES[entry['dtype']], math.prod(shape),
        8 + length + entry['data_offsets'][0]), shape)
  return tensors


def write(path: pathlib.Path, tensors: Mapping[str, Any],
          metadata: Mapping[str, str]) -> None:
  """Writes a file.

  Args:
    path: of the file.
    tensors: arrays, or what becomes one when it is asked for.
    metadata: texts for the header.
  """
  kinds = {dtype: name for name, dtype in _DTYPES.items()}
  header: dict[str, Any] = {_METADATA: dict(metadata)}
  end = 0
  for key, tensor in tensors.items():
    start, end = end, end + (
        math.prod(tensor.shape) * tensor.dtype.itemsize)
    header[key] = {'dtype': kinds[tensor.dtype], 'shape': tensor.shape,
                   'data_offsets': (start, end)}
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # The numbers are aligned.
  with path.open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for tensor in tensors.values():
      np.ascontiguousarray(tensor).tofile(file)
