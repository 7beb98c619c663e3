"""Reads PyTorch checkpoints without PyTorch, and without running them.

Both containers are read: the zip of PyTorch 1.6 and later, and the row of
pickles before it. What a pickle may name is in torch_pickle.py.

Letters: N, the numbers of a storage.
"""

import io
import os
import pathlib
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from input_pipeline import torch_pickle

# Source: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_PIECE_BYTES = 2**20

TorchFileError = torch_pickle.TorchFileError


class _Storages:
  """The storages that a pickle names, empty until `fill`."""

  def __init__(self, limit_bytes: int):
    self.arrays: dict[str, np.ndarray] = {}
    self._left_bytes = limit_bytes

  def find(
      self, key: str, dtype: np.dtype, size: int, view: tuple | None = None
  ) -> np.ndarray:
    """Returns the storage of that key, or the part that `view` names."""
    if key not in self.arrays:
      self._left_bytes -= size * dtype.itemsize
      if size < 0 or self._left_bytes < 0:
        raise TorchFileError(
            f'storage {key!r} claims {size} numbers, more than the file holds'
        )
      self.arrays[key] = np.empty(size, dtype)
    storage_N = self.arrays[key]
    if (storage_N.dtype, storage_N.size) != (dtype, size):
      raise TorchFileError(f'storage {key!r} has two types or two sizes')
    if view is None:
      return storage_N
    _, offset, length = view
    if not 0 <= offset <= offset + length <= size:
      raise TorchFileError(f'a part of storage {key!r} reaches outside it')
    return storage_N[offset : offset + length]

  def fill(self, key: str, file: Any, *, big_endian: bool) -> None:
    """Reads one storage, in place: the file's numbers are in memory once."""
    if key not in self.arrays:
      raise TorchFileError(f'storage {key!r} belongs to no tensor')
    storage_N = self.arrays[key]
    target = storage_N.view(np.uint8).data
    while target:
      # In pieces: a zip's entry reads a second copy of what is asked for.
      count = file.readinto(target[:_PIECE_BYTES])
      if not count:
        raise TorchFileError(f'storage {key!r} is cut off')
      target = target[count:]
    if big_endian:
      storage_N.byteswap(inplace=True)


def _read_zip(file: BinaryIO, size: int, more: torch_pickle.Names) -> Any:
  """Returns the object in the container of PyTorch 1.6 and later."""
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise TorchFileError(f'a zip with {len(pickles)} data.pkl, not with 1')
    if any(entry.compress_type for entry in entries.values()):
      raise TorchFileError('a compressed zip; PyTorch stores without')
    root = pickles[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    big_endian = order in entries and archive.read(order) == b'big'
    storages = _Storages(size)
    data = io.BytesIO(archive.read(pickles[0]))
    value = torch_pickle.load_next(data, size, storages.find, more=more)
    for key, storage_N in storages.arrays.items():
      name = f'{root}data/{key}'
      if name not in entries or entries[name].file_size != storage_N.nbytes:
        raise TorchFileError(
            f'{name} is missing or not of {storage_N.nbytes} bytes'
        )
      with archive.open(name) as entry:
        storages.fill(key, entry, big_endian=big_endian)
    return value


def _read_legacy(file: BinaryIO, size: int, more: torch_pickle.Names) -> Any:
  """Returns the object in the container before PyTorch 1.6."""
  storages = _Storages(size)
  read = lambda: torch_pickle.load_next(file, size, storages.find, more=more)
  if read() != LEGACY_MAGIC or read() != LEGACY_PROTOCOL:
    raise TorchFileError('neither container of PyTorch (zip, or pickles)')
  read()  # The writer's machine; its storages are little-endian on every one.
  value = read()
  keys = read()
  if sorted(map(str, keys)) != sorted(storages.arrays):
    raise TorchFileError('the list of storages does not match the tensors')
  for key in map(str, keys):
    (count,) = struct.unpack('<q', file.read(8))
    if count != storages.arrays[key].size:
      raise TorchFileError(f'storage {key!r} has another size than its tensors')
    storages.fill(key, file, big_endian=False)
  return value


def load(path: str | os.PathLike, *,
         more: torch_pickle.Names | None = None) -> Any:
  """Returns what `torch.save` wrote: plain containers with NumPy arrays.

  The arrays are read-only views; tensors that shared a storage still do.
  bfloat16 arrays have the dtype of ml_dtypes. Memory peaks at the file's size.

  Args:
    path: a `.pth`, `.pt` or `.bin` file of either container.
    more: names that the file may use beside those of a state dict.

  Raises:
    FileNotFoundError: no such file.
    TorchFileError: the file is damaged, is no PyTorch file, or names a
      function or class that is not on the list of safe ones.
  """
  path = pathlib.Path(path)
  size = path.stat().st_size
  with path.open('rb') as file:
    read = _read_zip if file.read(4) == b'PK\x03\x04' else _read_legacy
    file.seek(0)
    try:
      return read(file, size, more or {})
    except TorchFileError as error:
      raise type(error)(f'{path}: {error}') from error
    # A hostile or cut pickle makes the unpickler raise almost anything.
    except Exception as error:
      raise TorchFileError(
          f'{path}: damaged or no PyTorch file '
          f'({type(error).__name__}: {error})'
      ) from error
