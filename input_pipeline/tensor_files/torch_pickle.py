"""The part of pickle that a PyTorch checkpoint needs, and nothing more.

A pickle may name any function and have it called. Here it may name only those
of `_ALLOWED`, whose stand-ins build arrays and plain containers.
"""

from collections.abc import Callable, Mapping
import io
import pickle
import pickletools
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from input_pipeline import errors
from input_pipeline.tensor_files import stored_array

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


class TorchFileError(errors.UserError):
  """A file that is damaged, or that asks for more than arrays."""


class ForbiddenNameError(TorchFileError):
  """A pickle that asks for a function or class that is not on the list."""


class _Mapping(dict):
  """A dict with room for the attributes that PyTorch hangs on a state dict."""

  def __setstate__(self, state: Any) -> None:
    """Drops them: `_metadata` holds only versions of layers."""


class _Namespace(dict):
  """The attributes of an `argparse.Namespace`, as a dict."""

  def __setstate__(self, state: Any) -> None:
    self.update(state)


class _Dtype:
  """A NumPy dtype of plain numbers, from its pickled form."""

  def __init__(self, name: str, *_: Any):
    self.dtype = np.dtype(name)
    if self.dtype.kind not in 'biuf':
      raise TorchFileError(f'a NumPy array of dtype {name!r} is not numbers')

  def __setstate__(self, state: tuple) -> None:
    if state[1] == '>':
      self.dtype = self.dtype.newbyteorder('>')


class Part(NamedTuple):
  """Numbers of a storage that a tensor may reach: mostly all of them."""

  storage: stored_array.Storage
  first: int
  size: int


def _rebuild_tensor(
    part: Part,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> stored_array.StoredArray:
  """Returns one tensor; where its storage is in the file comes later.

  Args:
    part: the numbers that it may reach.
    offset: index among them of the tensor's first number.
    shape: the tensor's sizes.
    strides: for each axis, numbers from one entry to the next.

  Raises:
    TorchFileError: the tensor reaches outside its storage, or repeats its
      numbers to more than the file holds.
  """
  numbers = (offset, *shape, *strides)
  if not all(type(n) is int and n >= 0 for n in numbers) or (
      len(shape) != len(strides)
  ):
    raise TorchFileError(
        f'a tensor has offset {offset}, shape {shape}, strides {strides}; '
        'all must be whole numbers ≥ 0, and as many strides as sizes'
    )
  array = stored_array.StoredArray(
      part.storage, part.first + offset, tuple(shape), tuple(strides)
  )
  if array.size and array.end > part.first + part.size:
    raise TorchFileError(
        f'a tensor of shape {shape} ends at number '
        f'{array.end - part.first - 1} of a storage that holds {part.size}'
    )
  file_bytes = part.storage.path.stat().st_size
  if array.size > part.size and array.size * array.dtype.itemsize > file_bytes:
    raise TorchFileError(
        f'a tensor of shape {shape} repeats {part.size} numbers to more than '
        'the file holds'
    )
  return array


def _rebuild_numpy_scalar(dtype: _Dtype, data: bytes) -> Any:
  """Returns a Python number from a pickled NumPy scalar."""
  return np.frombuffer(data, dtype.dtype, count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
  """Returns bytes that pickle protocol 2 wrote as Latin-1 text."""
  if encoding != 'latin1':
    raise TorchFileError(f'bytes encoded as {encoding!r}, not as latin1')
  return text.encode('latin1')


Names = Mapping[tuple[str, str], Any]
# Every name that a file may use, and what stands for it here. None of the
# stand-ins reads, writes or calls anything.
_ALLOWED: Names = {
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
    ('torch', 'Size'): tuple,
    ('torch', 'device'): lambda *parts: ':'.join(map(str, parts)),
    ('collections', 'OrderedDict'): _Mapping,
    ('argparse', 'Namespace'): _Namespace,
    ('builtins', 'set'): set,
    ('__builtin__', 'set'): set,
    ('_codecs', 'encode'): _encode,
    ('numpy', 'dtype'): _Dtype,
    ('numpy.core.multiarray', 'scalar'): _rebuild_numpy_scalar,
    ('numpy._core.multiarray', 'scalar'): _rebuild_numpy_scalar,
    **{('torch', name): np.dtype(t) for name, t in _STORAGE_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
  """An unpickler that knows the names of a table and no other."""

  def __init__(self, data: bytes, find_storage: Callable[..., Part],
               names: Names):
    super().__init__(io.BytesIO(data), encoding='utf-8')
    self._find_storage = find_storage
    self._names = names

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in self._names:
      raise ForbiddenNameError(
          f'the file asks for {module}.{name}, which is not on the list of '
          'safe names; nothing was run. Save a plain state dict instead'
      )
    return self._names[module, name]

  def persistent_load(self, pid: Any) -> Part:
    kind, dtype, key, _, size, *view = pid
    if kind != 'storage' or not isinstance(dtype, np.dtype):
      raise TorchFileError(f'unknown persistent id {kind!r}')
    return self._find_storage(str(key), dtype, size, *view)


def load_next(
    file: BinaryIO, limit: int, find_storage: Callable[..., Part], *,
    more: Names | None = None,
) -> Any:
  """Returns the object whose pickle starts at the file's position.

  Args:
    file: left just after the pickle.
    limit: the file's size in bytes. A larger memo index is refused, since
      Python would allocate a table of that length.
    find_storage: called with the key, dtype and size of a storage, and with
      (key, offset, size) of the part that is meant where it is only a part.
    more: names that this pickle may use beside `_ALLOWED`, or instead.

  Raises:
    TorchFileError: the pickle names anything beyond `_ALLOWED` and `more`.
  """
  start = file.tell()
  for opcode, argument, _ in pickletools.genops(file):
    is_memo = opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT')
    if is_memo and int(argument or 0) > limit:
      raise TorchFileError(f'a pickle asks for {argument} memo entries')
  end = file.tell()
  file.seek(start)
  names = {**_ALLOWED, **(more or {})}
  return _Unpickler(file.read(end - start), find_storage, names).load()
