"""Arrays in .npy, .npz and msgpack, from bytes, without running anything.

NumPy's own reader allocates what a header claims before it looks how much
there is, and unpickles what it is allowed to.
"""

import io
import math
from typing import Any
import zipfile

import numpy as np

from input_pipeline.region_files import contract
from input_pipeline.region_files import optional
from input_pipeline.weights import pickles


def npy(data: bytes) -> Any:
  """Returns the array of a .npy file; of an array of objects, its objects.

  Raises:
    RowError: the header claims more than there is.
  """
  file = io.BytesIO(data)
  version = np.lib.format.read_magic(file)
  read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
          else np.lib.format.read_array_header_2_0)
  shape, is_fortran, dtype = read(file)
  if dtype.hasobject:
    return pickles.loads(data[file.tell():])
  size = math.prod(shape) * dtype.itemsize
  if dtype.kind not in 'biufSU' or size != len(data) - file.tell():
    raise contract.RowError(
        'damaged', f'{dtype} {list(shape)} in {len(data):,} bytes')
  return np.frombuffer(data, dtype, offset=file.tell()).reshape(
      shape, order='F' if is_fortran else 'C')


def npz(data: bytes) -> dict[str, Any]:
  """Returns the arrays of a .npz file.

  Raises:
    RowError: they claim to be larger than any image's when unpacked.
  """
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = archive.infolist()
    # Lies about the size end in a checksum error after that many bytes.
    total = sum(entry.file_size for entry in entries)
    if total > contract.MAX_BYTES:
      raise contract.RowError(
          'too large', f'{total:,} bytes unpacked; at most '
          f'{contract.MAX_BYTES:,} are read for an image')
    return {entry.filename.removesuffix('.npy'): npy(archive.read(entry))
            for entry in entries}


def msgpack(data: bytes) -> Any:
  """Returns what msgpack holds, with arrays as msgpack-numpy writes them.

  Source: msgpack_numpy.encode: {nd: True, type: dtype.str, kind: '', shape,
  data}; without `nd` set, a scalar.
  """
  return optional.load('msgpack').unpackb(
      data, object_hook=_array, strict_map_key=False)


def _array(value: dict) -> Any:
  """Returns the array or the dict that a msgpack map stands for."""
  value = {key.decode() if isinstance(key, bytes) else key: item
           for key, item in value.items()}
  if 'nd' not in value or 'data' not in value:
    return value
  kind = value.get('kind') or b''
  if kind not in (b'', ''):
    raise contract.RowError('damaged', f'an array of kind {kind!r}')
  dtype = np.dtype(value['type'])
  if dtype.kind not in 'biuf':
    raise contract.RowError('damaged', f'an array of {dtype}')
  array = np.frombuffer(value['data'], dtype)
  return array.reshape(value['shape']) if value['nd'] else array[0]
