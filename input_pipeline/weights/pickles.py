"""Reads pickles, PyTorch's among them, without PyTorch or running them.

A pickle may name any function and have it called. Here it may name only those
of `_ALLOWED`, whose stand-ins build arrays and plain containers: what PyTorch
writes for a state dict, and NumPy for arrays in pickle protocols 2 to 5.
Both containers of PyTorch are read: the zip of version 1.6 and later, and the
row of pickles before it.
"""

from collections.abc import Callable
import io
import math
import os
import pathlib
import pickle
import pickletools
import struct
from typing import Any, BinaryIO
import zipfile

import ml_dtypes
import numpy as np

from input_pipeline import errors

# Source: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES = {
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}


class ForbiddenNameError(errors.UserError):
  """A pickle that asks for a function or class that is not on the list."""


class _Storage:
  """Numbers in a row that tensors share; nothing that a pickle can unroll."""

  def __init__(self, numbers_N: np.ndarray):
    self.numbers_N = numbers_N

  def __setstate__(self, state: Any) -> None:
    raise errors.UserError('a storage whose attributes are set')


class _Tensor:
  """A tensor, checked once the whole pickle is read.

  Its offset and its strides, one an axis, count numbers.
  """

  def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...],
               strides: tuple[int, ...], *_: Any):
    self._storage, self._offset = storage, offset
    self._shape, self._strides = tuple(shape), tuple(strides)

  def __setstate__(self, state: Any) -> None:
    raise errors.UserError('a tensor whose attributes are set')

  def value(self, num_bytes: int) -> np.ndarray:
    """Returns the array, a read-only view of a file of `num_bytes`."""
    shape, strides = self._shape, self._strides
    if not isinstance(self._storage, _Storage):
      raise errors.UserError(f'a tensor over a {type(self._storage).__name__}')
    if not all(type(n) is int and n >= 0
               for n in (self._offset, *shape, *strides)) or (
                   len(shape) != len(strides)):
      raise errors.UserError(
          f'a tensor has offset {self._offset}, shape {shape}, strides '
          f'{strides}; all must be whole numbers ≥ 0, and as many strides as '
          'sizes')
    numbers_N = self._storage.numbers_N
    last = self._offset + sum(
        (n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    # Of what is there, whatever the pickle said: memory is read unchecked.
    if count and last >= numbers_N.size:
      raise errors.UserError(
          f'a tensor of shape {shape} ends at number {last} of a storage that '
          f'holds {numbers_N.size}')
    if count > numbers_N.size and count * numbers_N.itemsize > num_bytes:
      raise errors.UserError(
          f'a tensor of shape {shape} repeats {numbers_N.size} numbers to more '
          'than the file holds')
    return np.lib.stride_tricks.as_strided(
        numbers_N[self._offset:], shape,
        tuple(step * numbers_N.itemsize for step in strides), writeable=False)


class _Mapping(dict):
  """A dict with room for the attributes that PyTorch hangs on a state dict."""

  def __setstate__(self, state: Any) -> None:
    """Drops them: `_metadata` holds only versions of layers."""


class _Namespace(dict):
  """The attributes of an `argparse.Namespace`, as a dict."""

  def __setstate__(self, state: Any) -> None:
    self.update(state)


class _Dtype:
  """A NumPy dtype of numbers, strings or objects, from its pickled form."""

  def __init__(self, name: str, *_: Any):
    self.dtype = np.dtype(name)
    if self.dtype.kind not in 'biufSUO' or self.dtype.names:
      raise errors.UserError(
          f'an array of dtype {name!r}; allowed: numbers, strings, objects')

  def __setstate__(self, state: tuple) -> None:
    if state[1] == '>':
      self.dtype = self.dtype.newbyteorder('>')


class _Array:
  """An array in the making; `content` is the array, or a list of objects."""

  def __init__(self, *_: Any):
    self.content: Any = np.zeros(0, np.uint8)

  def __setstate__(self, state: tuple) -> None:
    _, shape, dtype, is_fortran, data = state
    if dtype.dtype.kind == 'O':
      if not isinstance(data, list) or len(data) != math.prod(shape):
        raise errors.UserError('an array of objects without them')
      self.content = data if shape else data[0]
    else:
      self.content = _numbers(data, dtype, shape, 'F' if is_fortran else 'C')


def _numbers(data: Any, dtype: _Dtype, shape: tuple, order: Any) -> np.ndarray:
  if dtype.dtype.kind == 'O':
    raise errors.UserError('an array of objects out of raw bytes')
  return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: Any) -> _Array:
  """Returns the array that pickle protocol 5 wrote in one piece."""
  array = _Array()
  array.content = _numbers(data, dtype, shape, order)
  return array


def _numpy_scalar(dtype: _Dtype, data: bytes) -> Any:
  """Returns a Python number from a pickled NumPy scalar."""
  return np.frombuffer(data, dtype.dtype, count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
  """Returns bytes that pickle protocol 2 wrote as Latin-1 text."""
  if encoding != 'latin1':
    raise errors.UserError(f'bytes encoded as {encoding!r}, not as latin1')
  return text.encode('latin1')


# Every name that a file may use, and what stands for it here. None of the
# stand-ins reads, writes or calls anything.
_ALLOWED: dict[tuple[str, str], Any] = {
    ('torch._utils', '_rebuild_tensor'): _Tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _Tensor,
    ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
    ('torch', 'Size'): tuple,
    ('torch', 'device'): lambda *parts: ':'.join(map(str, parts)),
    ('collections', 'OrderedDict'): _Mapping,
    ('argparse', 'Namespace'): _Namespace,
    ('builtins', 'set'): set,
    ('__builtin__', 'set'): set,
    ('_codecs', 'encode'): _encode,
    # How Python 3 writes b'' in protocol 2; never with a size to allocate.
    ('__builtin__', 'bytes'): lambda: b'',
    ('numpy', 'dtype'): _Dtype,
    # Named in a call of `_reconstruct`, never called itself.
    ('numpy', 'ndarray'): None,
    # A text: a pickle may set what is inside of most other objects.
    **{('torch', name): name for name in _STORAGE_DTYPES},
}
for _core in ('numpy.core', 'numpy._core'):
  _ALLOWED |= {
      (f'{_core}.multiarray', '_reconstruct'): _Array,
      (f'{_core}.multiarray', 'scalar'): _numpy_scalar,
      (f'{_core}.numeric', '_frombuffer'): _from_buffer,
  }

# Key, dtype and size of a storage → its numbers.
_FindStorage = Callable[[str, np.dtype, int], np.ndarray]


class _Unpickler(pickle.Unpickler):
  """An unpickler that knows the names of `_ALLOWED` and no other."""

  def __init__(self, data: bytes, find_storage: _FindStorage | None):
    super().__init__(io.BytesIO(data), encoding='utf-8')
    self._find_storage = find_storage

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ALLOWED:
      raise ForbiddenNameError(
          f'the file asks for {module}.{name}, which is not on the list of '
          'safe names; nothing was run. Save a plain state dict instead')
    return _ALLOWED[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    kind, name, key, _, size, *view = pid
    if kind != 'storage' or not self._find_storage:
      raise errors.UserError(f'unknown persistent id {kind!r}')
    numbers_N = self._find_storage(
        str(key), np.dtype(_STORAGE_DTYPES[name]), size)
    # PyTorch before 1.6 names parts of a storage: key, first number, count.
    _, first, count = view[0] if view and view[0] else (key, 0, size)
    if not 0 <= first <= first + count <= size:
      raise errors.UserError(f'a part of storage {key!r} reaches outside it')
    return _Storage(numbers_N[first:first + count])


def _load_next(file: BinaryIO, limit: int,
               find_storage: _FindStorage | None = None) -> Any:
  """Returns the object of the pickle in a file of `limit` bytes, read past it.
  """
  start = file.tell()
  # Python would allocate a table as long as the largest memo index.
  for opcode, argument, _ in pickletools.genops(file):
    is_memo = opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT')
    if is_memo and int(argument or 0) > limit:
      raise errors.UserError(f'a pickle asks for {argument} memo entries')
  end = file.tell()
  file.seek(start)
  return _Unpickler(file.read(end - start), find_storage).load()


def _finish(value: Any, num_bytes: int) -> Any:
  """Returns plain containers with NumPy arrays in place of the stand-ins."""
  if isinstance(value, _Tensor):
    return value.value(num_bytes)
  if isinstance(value, _Array):
    return _finish(value.content, num_bytes)
  if isinstance(value, dict):
    return {key: _finish(item, num_bytes) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(_finish(item, num_bytes) for item in value)
  return value


def loads(data: bytes) -> Any:
  """Returns what a pickle holds: containers, numbers, strings, arrays.

  The arrays are read-only; an array of objects becomes a flat list. A pickle
  that names anything else is a UserError; damage raises almost anything.
  """
  return _finish(_load_next(io.BytesIO(data), len(data)), len(data))


def load_torch(path: str | os.PathLike) -> Any:
  """Returns what `torch.save` wrote: plain containers with NumPy arrays.

  The arrays are read-only views of the file, read when they are used; tensors
  that shared a storage still do. bfloat16 has the dtype of ml_dtypes. A zip's
  checksums have been compared; the container before PyTorch 1.6 has none.

  Raises:
    UserError: the file is damaged, no PyTorch file, or names a function or
      class that is not on the list of safe ones.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    load = _load_zip if file.read(4) == b'PK\x03\x04' else _load_legacy
    file.seek(0)
    try:
      # Mapped, for a file of region features may be larger than the memory.
      # A plain array: each slice of a memmap costs much more.
      data_N = np.asarray(np.memmap(path, np.uint8, 'r'))
      return _finish(load(file, data_N), data_N.size)
    except errors.UserError as error:
      raise type(error)(f'{path}: {error}') from error
    # A hostile or cut pickle makes the unpickler raise almost anything.
    except Exception as error:
      raise errors.UserError(
          f'{path}: damaged or no PyTorch file '
          f'({type(error).__name__}: {error})') from error


def _load_zip(file: BinaryIO, data_N: np.ndarray) -> Any:
  """Returns the object in the container of PyTorch 1.6 and later."""
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    found = [name for name in entries if name.endswith('/data.pkl')]
    if len(found) != 1:
      raise errors.UserError(f'a zip with {len(found)} data.pkl, not with 1')
    if any(entry.compress_type for entry in entries.values()):
      raise errors.UserError('a compressed zip; PyTorch stores without')
    # Numbers are read past zipfile: here all checksums are compared.
    damaged = archive.testzip()
    if damaged:
      raise errors.UserError(f'{damaged} differs from its checksum')
    root = found[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    is_swapped = order in entries and archive.read(order) == b'big'
    pickled = archive.read(found[0])

  def find(key: str, dtype: np.dtype, size: int) -> np.ndarray:
    entry = entries.get(f'{root}data/{key}')
    if not entry or entry.file_size != size * dtype.itemsize:
      raise errors.UserError(f'{root}data/{key} is missing or not of '
                             f'{size * dtype.itemsize} bytes')
    # An entry's own header. Source: PKWARE's APPNOTE, 4.3.7: 26 bytes, then the
    # lengths of the name and of the extra field, which differ from those in
    # the directory.
    file.seek(entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))
    numbers_N = np.frombuffer(data_N, dtype, size, start)
    return numbers_N.byteswap() if is_swapped else numbers_N

  return _load_next(io.BytesIO(pickled), len(pickled), find)


def _load_legacy(file: BinaryIO, data_N: np.ndarray) -> Any:
  """Returns the object in the container before PyTorch 1.6."""

  def read(find: _FindStorage | None = None) -> Any:
    return _load_next(file, data_N.size, find)

  if read() != _LEGACY_MAGIC or read() != _LEGACY_PROTOCOL:
    raise errors.UserError('neither container of PyTorch (zip, or pickles)')
  read()  # The writer's machine; its storages are little-endian on every one.
  start = file.tell()
  claimed: dict[str, tuple[np.dtype, int]] = {}
  numbers: dict[str, np.ndarray] = {}

  def claim(key: str, dtype: np.dtype, size: int) -> np.ndarray:
    if claimed.setdefault(key, (dtype, size)) != (dtype, size):
      raise errors.UserError(f'storage {key!r} has two types or two sizes')
    return np.broadcast_to(np.zeros((), dtype), size)

  # The numbers lie behind the pickle that asks for them: it is read twice.
  read(claim)
  keys = [str(key) for key in read()]
  if sorted(keys) != sorted(claimed):
    raise errors.UserError('the list of storages does not match the tensors')
  for key in keys:
    dtype, size = claimed[key]
    (count,) = struct.unpack('<q', file.read(8))
    if count != size:
      raise errors.UserError(
          f'storage {key!r} has another size than its tensors')
    numbers[key] = np.frombuffer(data_N, dtype, size, file.tell())
    file.seek(size * dtype.itemsize, os.SEEK_CUR)
  if file.tell() != data_N.size:
    raise errors.UserError(
        f'{data_N.size - file.tell()} bytes after the last storage')
  file.seek(start)
  return read(lambda key, *_: numbers[key])
