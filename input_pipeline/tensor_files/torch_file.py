"""Reads PyTorch checkpoints without PyTorch, and without running them.

Both containers are read: the zip of PyTorch 1.6 and later, and the row of
pickles before it. What a pickle may name is in torch_pickle.py.
"""

import io
import os
import pathlib
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from input_pipeline.tensor_files import stored_array
from input_pipeline.tensor_files import torch_pickle

# Source: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

TorchFileError = torch_pickle.TorchFileError


class _Storages:
  """The storages that a pickle names, whose places come to be known later."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.found: dict[str, stored_array.Storage] = {}
    self._left_bytes = path.stat().st_size

  def find(
      self, key: str, dtype: np.dtype, size: int, view: tuple | None = None
  ) -> torch_pickle.Part:
    """Returns the storage of that key, or the part that `view` names."""
    if key not in self.found:
      self._left_bytes -= size * dtype.itemsize
      if size < 0 or self._left_bytes < 0:
        raise TorchFileError(
            f'storage {key!r} claims {size} numbers, more than the file holds'
        )
      self.found[key] = stored_array.Storage(self.path, dtype, size)
    storage = self.found[key]
    if (storage.dtype, storage.size) != (dtype, size):
      raise TorchFileError(f'storage {key!r} has two types or two sizes')
    if view is None:
      return torch_pickle.Part(storage, 0, size)
    _, offset, length = view
    if not 0 <= offset <= offset + length <= size:
      raise TorchFileError(f'a part of storage {key!r} reaches outside it')
    return torch_pickle.Part(storage, offset, length)


def _scan_zip(
    file: BinaryIO, storages: _Storages, more: torch_pickle.Names
) -> Any:
  """Returns the object in the container of PyTorch 1.6 and later."""
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise TorchFileError(f'a zip with {len(pickles)} data.pkl, not with 1')
    if any(entry.compress_type for entry in entries.values()):
      raise TorchFileError('a compressed zip; PyTorch stores without')
    # Numbers are read past zipfile later: here all checksums are compared.
    damaged = archive.testzip()
    if damaged:
      raise TorchFileError(f'{damaged} differs from its checksum')
    root = pickles[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    swapped = order in entries and archive.read(order) == b'big'
    data = archive.read(pickles[0])
    value = torch_pickle.load_next(
        io.BytesIO(data), len(data), storages.find, more=more
    )
    for key, storage in storages.found.items():
      name = f'{root}data/{key}'
      num_bytes = storage.size * storage.dtype.itemsize
      if name not in entries or entries[name].file_size != num_bytes:
        raise TorchFileError(f'{name} is missing or not of {num_bytes} bytes')
      storage.offset = _data_offset(file, entries[name])
      storage.swapped = swapped
    return value


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
  """Returns where an entry's bytes begin, past its own header."""
  # Source: PKWARE's APPNOTE, 4.3.7: 26 bytes, then the lengths of the name and
  # of the extra field, which differ from those in the directory.
  file.seek(entry.header_offset + 26)
  return entry.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))


def _scan_legacy(
    file: BinaryIO, storages: _Storages, more: torch_pickle.Names
) -> Any:
  """Returns the object in the container before PyTorch 1.6."""
  size = storages.path.stat().st_size
  read = lambda: torch_pickle.load_next(file, size, storages.find, more=more)
  if read() != _LEGACY_MAGIC or read() != _LEGACY_PROTOCOL:
    raise TorchFileError('neither container of PyTorch (zip, or pickles)')
  read()  # The writer's machine; its storages are little-endian on every one.
  value = read()
  keys = read()
  if sorted(map(str, keys)) != sorted(storages.found):
    raise TorchFileError('the list of storages does not match the tensors')
  for key in map(str, keys):
    storage = storages.found[key]
    (count,) = struct.unpack('<q', file.read(8))
    if count != storage.size:
      raise TorchFileError(f'storage {key!r} has another size than its tensors')
    storage.offset = file.tell()
    file.seek(count * storage.dtype.itemsize, os.SEEK_CUR)
    if file.tell() > size:
      raise TorchFileError(f'storage {key!r} is cut off')
  if file.tell() != size:
    raise TorchFileError(f'{size - file.tell()} bytes after the last storage')
  return value


def scan(
    path: str | os.PathLike, *, more: torch_pickle.Names | None = None
) -> Any:
  """Returns what `torch.save` wrote: plain containers with StoredArrays.

  Their numbers stay in the file until they are read. A zip's checksums have
  been compared; the older container has none. bfloat16 arrays have the dtype
  of ml_dtypes.

  Args:
    path: a `.pth`, `.pt` or `.bin` file of either container.
    more: names that the file may use beside those of a state dict.

  Raises:
    FileNotFoundError: no such file.
    TorchFileError: the file is damaged, is no PyTorch file, or names a
      function or class that is not on the list of safe ones.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    scan_container = (
        _scan_zip if file.read(4) == b'PK\x03\x04' else _scan_legacy
    )
    file.seek(0)
    try:
      return scan_container(file, _Storages(path), more or {})
    except TorchFileError as error:
      raise type(error)(f'{path}: {error}') from error
    # A hostile or cut pickle makes the unpickler raise almost anything.
    except Exception as error:
      raise TorchFileError(
          f'{path}: damaged or no PyTorch file '
          f'({type(error).__name__}: {error})'
      ) from error


def load(
    path: str | os.PathLike, *, more: torch_pickle.Names | None = None
) -> Any:
  """Returns what `torch.save` wrote: plain containers with NumPy arrays.

  The arrays are read-only views; tensors that shared a storage still do.
  Memory peaks at the file's size.

  Args and errors: of `scan`.
  """
  numbers: dict[int, np.ndarray] = {}

  def read(value: Any) -> Any:
    if isinstance(value, stored_array.StoredArray):
      storage = value.storage
      if id(storage) not in numbers:
        whole = stored_array.StoredArray.rows(storage, (storage.size,))
        numbers[id(storage)] = whole.read()
      return value.view(numbers[id(storage)][value.first :])
    if isinstance(value, dict):
      return {key: read(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
      return type(value)(map(read, value))
    return value

  return read(scan(path, more=more))
