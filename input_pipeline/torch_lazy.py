"""Reads PyTorch files tensor by tensor: as large as they like.

`torch_file.load` holds the whole file in memory; here only the containers are
read, and each tensor when it is asked for.
"""

from collections.abc import Mapping
import io
import math
import os
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

from input_pipeline import torch_file
from input_pipeline import torch_pickle

_LOCAL_HEADER = struct.Struct('<26xHH')


class _Storage(NamedTuple):
  """A storage that a pickle names, or the part of one."""
  key: str
  dtype: np.dtype
  size: int
  start: int = 0


class Tensor(NamedTuple):
  """A tensor that has not been read."""
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _find(key: str, dtype: np.dtype, size: int, view: tuple | None = None,
          ) -> _Storage:
  return (_Storage(key, dtype, size) if view is None
          else _Storage(key, dtype, view[2], view[1]))


def _rebuild(storage: _Storage, offset: int, shape: tuple, strides: tuple,
             *_: Any) -> Tensor:
  return Tensor(storage, offset, tuple(shape), tuple(strides))


_NAMES: torch_pickle.Names = {
    ('torch._utils', '_rebuild_tensor'): _rebuild,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild}


class TorchFile:
  """A PyTorch file whose tensors stay in it until they are read.

  Attributes:
    value: what was saved, with a `Tensor` for each tensor.
  """

  def __init__(self, path: str | os.PathLike, *,
               more: torch_pickle.Names | None = None):
    """Reads the containers of either format.

    Args:
      path: of the file.
      more: names that it may use beside those of a state dict.

    Raises:
      TorchFileError: as `torch_file.load`; what the unpickler and zipfile
        raise at damage comes through.
    """
    self._more = {**_NAMES, **(more or {})}
    self._size = os.path.getsize(path)
    self._big_endian = False
    self._file = open(path, 'rb')  # noqa: SIM115 — closed by `close`.
    try:
      is_zip = self._file.read(4) == b'PK\x03\x04'
      self._file.seek(0)
      read = self._read_zip if is_zip else self._read_legacy
      self.value, self._starts = read(self._file)
    except BaseException:
      self.close()
      raise

  def close(self) -> None:
    self._file.close()

  def read(self, tensor: Tensor) -> np.ndarray:
    """Returns a tensor's numbers.

    Raises:
      TorchFileError: it reaches outside its storage, or that outside the file.
    """
    storage, offset, shape, strides = tensor
    if storage.key not in self._starts:
      raise torch_pickle.TorchFileError(f'no storage {storage.key!r}')
    if not all(type(n) is int and n >= 0 for n in (
        offset, storage.start, *shape, *strides)) or (
            len(shape) != len(strides)):
      raise torch_pickle.TorchFileError(
          f'a tensor has offset {offset}, shape {shape}, strides {strides}')
    if not math.prod(shape):
      return np.empty(shape, storage.dtype)
    count = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    first = storage.start + offset
    item = storage.dtype.itemsize
    data = b''
    if first + count <= storage.start + storage.size and (
        count * item <= self._size):
      data = os.pread(self._file.fileno(), count * item,
                      self._starts[storage.key] + first * item)
    if len(data) != count * item:
      raise torch_pickle.TorchFileError(
          f'a tensor of shape {shape} reaches outside its storage')
    numbers_N = np.frombuffer(data, storage.dtype.newbyteorder(
        '>' if self._big_endian else '<'))
    return np.lib.stride_tricks.as_strided(
        numbers_N, shape, tuple(stride * item for stride in strides),
        writeable=False)

  def _read_zip(self, file: BinaryIO) -> tuple[Any, Mapping[str, int]]:
    """Returns the value, and where in the file each storage starts."""
    with zipfile.ZipFile(file) as archive:
      entries = {entry.filename: entry for entry in archive.infolist()}
      pickles = [name for name in entries if name.endswith('/data.pkl')]
      if len(pickles) != 1 or any(e.compress_type for e in entries.values()):
        raise torch_pickle.TorchFileError('a zip that PyTorch did not write')
      root = pickles[0].removesuffix('data.pkl')
      order = f'{root}byteorder'
      self._big_endian = order in entries and archive.read(order) == b'big'
      data = io.BytesIO(archive.read(pickles[0]))
    value = torch_pickle.load_next(data, self._size, _find, more=self._more)
    starts = {}
    for name, entry in entries.items():
      file.seek(entry.header_offset)
      lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
      starts[name.removeprefix(f'{root}data/')] = (
          entry.header_offset + _LOCAL_HEADER.size + sum(lengths))
    return value, starts

  def _read_legacy(self, file: BinaryIO) -> tuple[Any, Mapping[str, int]]:
    """Returns the value, and where in the file each storage starts."""
    dtypes: dict[str, np.dtype] = {}

    def find(key: str, dtype: np.dtype, *rest: Any) -> _Storage:
      dtypes[key] = dtype
      return _find(key, dtype, *rest)

    read = lambda: torch_pickle.load_next(
        file, self._size, find, more=self._more)
    if (read() != torch_file.LEGACY_MAGIC
        or read() != torch_file.LEGACY_PROTOCOL):
      raise torch_pickle.TorchFileError('neither container of PyTorch')
    read()  # The writer's machine.
    value = read()
    starts = {}
    for key in map(str, read()):
      (count,) = struct.unpack('<q', file.read(8))
      starts[key] = file.tell()
      file.seek(count * dtypes[key].itemsize, os.SEEK_CUR)
    return value, starts
