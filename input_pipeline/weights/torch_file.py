"""Reads PyTorch checkpoints without PyTorch, and without running them.

Both containers are read: the zip of PyTorch 1.6 and later, and the row of
pickles before it. What a pickle may name is in pickles.py.
"""

import io
import os
import pathlib
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from input_pipeline import errors
from input_pipeline.weights import pickles

# Source: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Container:
  """A mapped file and the storages that its pickle names."""

  def __init__(self, path: pathlib.Path):
    # Mapped, for a file of region features may be larger than the memory.
    self._data = np.memmap(path, np.uint8, 'r')
    self.size = len(self._data)
    self.storages: dict[str, pickles.Storage] = {}

  def find(self, key: str, dtype: np.dtype, size: int) -> pickles.Storage:
    """Returns the storage of that key."""
    storage = self.storages.setdefault(key, pickles.Storage(dtype, size))
    if (storage.dtype, storage.size) != (dtype, size):
      raise errors.UserError(f'storage {key!r} has two types or two sizes')
    return storage

  def place(self, key: str, start: int, *, swapped: bool = False) -> int:
    """Sets a storage's numbers from a byte on, and returns where they end."""
    storage = self.storages[key]
    end = start + storage.size * storage.dtype.itemsize
    if end > self.size:
      raise errors.UserError(f'storage {key!r} is cut off')
    # A plain array: each slice of a memmap costs much more.
    numbers_N = np.frombuffer(
        self._data, storage.dtype, storage.size, start)
    storage.numbers_N = numbers_N.byteswap() if swapped else numbers_N
    return end


def _load_zip(file: BinaryIO, container: _Container) -> Any:
  """Returns the object in the container of PyTorch 1.6 and later."""
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    found = [name for name in entries if name.endswith('/data.pkl')]
    if len(found) != 1:
      raise errors.UserError(f'a zip with {len(found)} data.pkl, not with 1')
    if any(entry.compress_type for entry in entries.values()):
      raise errors.UserError('a compressed zip; PyTorch stores without')
    # Numbers are read past zipfile later: here all checksums are compared.
    damaged = archive.testzip()
    if damaged:
      raise errors.UserError(f'{damaged} differs from its checksum')
    root = found[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    swapped = order in entries and archive.read(order) == b'big'
    data = archive.read(found[0])
  value = pickles.load_next(io.BytesIO(data), len(data), container.find)
  for key, storage in container.storages.items():
    name = f'{root}data/{key}'
    num_bytes = storage.size * storage.dtype.itemsize
    if name not in entries or entries[name].file_size != num_bytes:
      raise errors.UserError(f'{name} is missing or not of {num_bytes} bytes')
    container.place(key, _data_offset(file, entries[name]), swapped=swapped)
  return value


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
  """Returns where an entry's bytes begin, past its own header."""
  # Source: PKWARE's APPNOTE, 4.3.7: 26 bytes, then the lengths of the name and
  # of the extra field, which differ from those in the directory.
  file.seek(entry.header_offset + 26)
  return entry.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))


def _load_legacy(file: BinaryIO, container: _Container) -> Any:
  """Returns the object in the container before PyTorch 1.6."""

  def read():
    return pickles.load_next(file, container.size, container.find)

  if read() != _LEGACY_MAGIC or read() != _LEGACY_PROTOCOL:
    raise errors.UserError('neither container of PyTorch (zip, or pickles)')
  read()  # The writer's machine; its storages are little-endian on every one.
  value = read()
  keys = [str(key) for key in read()]
  if sorted(keys) != sorted(container.storages):
    raise errors.UserError('the list of storages does not match the tensors')
  for key in keys:
    (count,) = struct.unpack('<q', file.read(8))
    if count != container.storages[key].size:
      raise errors.UserError(
          f'storage {key!r} has another size than its tensors')
    file.seek(container.place(key, file.tell()))
  if file.tell() != container.size:
    raise errors.UserError(
        f'{container.size - file.tell()} bytes after the last storage')
  return value


def load(path: str | os.PathLike) -> Any:
  """Returns what `torch.save` wrote: plain containers with NumPy arrays.

  The arrays are read-only views of the file, read when they are used; tensors
  that shared a storage still do. bfloat16 has the dtype of ml_dtypes. A zip's
  checksums have been compared; the older container has none.

  Args:
    path: a `.pth`, `.pt` or `.bin` file of either container.

  Raises:
    FileNotFoundError: no such file.
    UserError: the file is damaged, is no PyTorch file, or names a function or
      class that is not on the list of safe ones.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    load_container = (
        _load_zip if file.read(4) == b'PK\x03\x04' else _load_legacy)
    file.seek(0)
    try:
      container = _Container(path)
      return pickles.finish(load_container(file, container), container.size)
    except errors.UserError as error:
      raise type(error)(f'{path}: {error}') from error
    # A hostile or cut pickle makes the unpickler raise almost anything.
    except Exception as error:
      raise errors.UserError(
          f'{path}: damaged or no PyTorch file '
          f'({type(error).__name__}: {error})') from error
