"""Reads pickles of arrays and plain containers, without running them.

A pickle may name any function and have it called. Here it may name only those
of `_ALLOWED`, whose stand-ins build arrays and plain containers: what PyTorch
writes for a state dict, and NumPy for arrays in pickle protocols 2 to 5.
"""

from collections.abc import Callable
import io
import math
import pickle
import pickletools
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from input_pipeline import errors

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


class Storage:
  """Numbers in a row that tensors of PyTorch share.

  Attributes:
    dtype: of the numbers.
    size: how many.
    numbers_N: the numbers, read-only; the container says them, some only after
      the pickle.
  """

  def __init__(self, dtype: np.dtype, size: int):
    if size < 0:
      raise errors.UserError(f'a storage claims {size} numbers')
    self.dtype, self.size = dtype, size
    self.numbers_N = np.empty(0, dtype)


class _Tensor:
  """A tensor whose numbers come to be known later."""

  def __init__(self, part: tuple[Storage, int, int], offset: int,
               shape: tuple[int, ...], strides: tuple[int, ...], *_: Any):
    """Takes what the pickle says.

    Args:
      part: a storage, and first number and count of those that it may reach.
      offset: index among them of the tensor's first number.
      shape: the tensor's sizes.
      strides: for each axis, numbers from one entry to the next.
    """
    self._storage, self._first, self._size = part
    self._offset = offset
    self._shape, self._strides = tuple(shape), tuple(strides)

  def __setstate__(self, state: Any) -> None:
    raise errors.UserError('a tensor whose attributes are set')

  def value(self, num_bytes: int) -> np.ndarray:
    """Returns the array, a read-only view of its storage.

    Args:
      num_bytes: of the file.

    Raises:
      UserError: the tensor reaches outside its storage, or repeats its numbers
        to more than the file holds.
    """
    shape, strides = self._shape, self._strides
    if not all(type(n) is int and n >= 0
               for n in (self._offset, *shape, *strides)) or (
                   len(shape) != len(strides)):
      raise errors.UserError(
          f'a tensor has offset {self._offset}, shape {shape}, strides '
          f'{strides}; all must be whole numbers ≥ 0, and as many strides as '
          'sizes')
    part_N = self._storage.numbers_N[self._first:][:self._size]
    last = self._offset + sum(
        (n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    # Of what is there, whatever the pickle said: memory is read unchecked.
    if count and last >= part_N.size:
      raise errors.UserError(
          f'a tensor of shape {shape} ends at number {last} of a storage that '
          f'holds {part_N.size}')
    if count > part_N.size and count * part_N.itemsize > num_bytes:
      raise errors.UserError(
          f'a tensor of shape {shape} repeats {part_N.size} numbers to more '
          'than the file holds')
    return np.lib.stride_tricks.as_strided(
        part_N[self._offset:], shape,
        tuple(step * part_N.itemsize for step in strides), writeable=False)


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

_FindStorage = Callable[[str, np.dtype, int], Storage]


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

  def persistent_load(self, pid: Any) -> tuple[Storage, int, int]:
    kind, name, key, _, size, *view = pid
    if kind != 'storage' or not self._find_storage:
      raise errors.UserError(f'unknown persistent id {kind!r}')
    storage = self._find_storage(
        str(key), np.dtype(_STORAGE_DTYPES[name]), size)
    # PyTorch before 1.6 names parts of a storage: key, first number, count.
    _, first, count = view[0] if view and view[0] else (key, 0, size)
    if not 0 <= first <= first + count <= size:
      raise errors.UserError(f'a part of storage {key!r} reaches outside it')
    return storage, first, count


def load_next(file: BinaryIO, limit: int,
              find_storage: _FindStorage | None = None) -> Any:
  """Returns the object whose pickle starts at the file's position.

  It goes through `finish` once its storages' numbers are known.

  Args:
    file: left just after the pickle.
    limit: the file's size in bytes. A larger memo index is refused, since
      Python would allocate a table of that length.
    find_storage: called with key, dtype and size of each storage that the
      pickle names; None = it may name none.

  Raises:
    UserError: the pickle names anything beyond `_ALLOWED`.
  """
  start = file.tell()
  for opcode, argument, _ in pickletools.genops(file):
    is_memo = opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT')
    if is_memo and int(argument or 0) > limit:
      raise errors.UserError(f'a pickle asks for {argument} memo entries')
  end = file.tell()
  file.seek(start)
  return _Unpickler(file.read(end - start), find_storage).load()


def finish(value: Any, num_bytes: int) -> Any:
  """Returns plain containers with NumPy arrays; an array of objects is a list.

  Args:
    value: of `load_next`.
    num_bytes: of the file.
  """
  if isinstance(value, _Tensor):
    return value.value(num_bytes)
  if isinstance(value, _Array):
    return finish(value.content, num_bytes)
  if isinstance(value, dict):
    return {key: finish(item, num_bytes) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(finish(item, num_bytes) for item in value)
  return value


def loads(data: bytes) -> Any:
  """Returns what a pickle holds: containers, numbers, strings, arrays.

  The arrays are read-only; an array of objects becomes a flat list.

  Raises:
    UserError: the pickle names anything else; whatever the unpickler raises,
      where it is damaged.
  """
  return finish(load_next(io.BytesIO(data), len(data)), len(data))
