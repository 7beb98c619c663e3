"""Reads pickles of NumPy arrays and plain containers, without running them.

It is the reader of torch_pickle.py with the few names more that NumPy writes,
in pickle protocols 2 to 5 and from NumPy 1 and 2.
"""

import io
import math
from typing import Any

import numpy as np

from input_pipeline.tensor_files import torch_pickle


class _Dtype:
  """A NumPy dtype of numbers, strings or objects, from its pickled form."""

  def __init__(self, name: str, *_: Any):
    self.dtype = np.dtype(name)
    if self.dtype.kind not in 'biufSUO' or self.dtype.names:
      raise torch_pickle.TorchFileError(
          f'an array of dtype {name!r}; allowed: numbers, strings, objects')

  def __setstate__(self, state: tuple) -> None:
    if state[1] == '>':
      self.dtype = self.dtype.newbyteorder('>')


class _Array:
  """An array in the making; `value` is the array, or a list of objects."""

  def __init__(self, *_: Any):
    self.value: Any = np.zeros(0, np.uint8)

  def __setstate__(self, state: tuple) -> None:
    _, shape, dtype, is_fortran, data = state
    if dtype.dtype.kind == 'O':
      if not isinstance(data, list) or len(data) != math.prod(shape):
        raise torch_pickle.TorchFileError('an array of objects without them')
      self.value = data if shape else data[0]
    else:
      self.value = _numbers(data, dtype, shape, 'F' if is_fortran else 'C')


def _numbers(data: Any, dtype: _Dtype, shape: tuple, order: Any) -> np.ndarray:
  if dtype.dtype.kind == 'O':
    raise torch_pickle.TorchFileError('an array of objects out of raw bytes')
  return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: Any) -> _Array:
  """Returns the array that pickle protocol 5 wrote in one piece."""
  array = _Array()
  array.value = _numbers(data, dtype, shape, order)
  return array


# For `torch_pickle.load_next`; what it gives goes through `unwrap`.
NAMES: dict[tuple[str, str], Any] = {
    ('numpy', 'dtype'): _Dtype,
    # Named in a call of `_reconstruct`, never called itself.
    ('numpy', 'ndarray'): None,
    # How Python 3 writes b'' in protocol 2; never with a size to allocate.
    ('__builtin__', 'bytes'): lambda: b'',
    **{(f'numpy.{core}.multiarray', '_reconstruct'): _Array
       for core in ('core', '_core')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): _from_buffer
       for core in ('core', '_core')}}


def unwrap(value: Any) -> Any:
  """Returns plain containers with the finished arrays in them."""
  if isinstance(value, _Array):
    return unwrap(value.value)
  if isinstance(value, dict):
    return {key: unwrap(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(map(unwrap, value))
  return value


def loads(data: bytes) -> Any:
  """Returns what a pickle holds: containers, numbers, strings, arrays.

  The arrays are read-only; an array of objects becomes a flat list.

  Raises:
    UserError: the pickle names anything else; whatever the unpickler raises,
      where it is damaged.
  """
  return unwrap(torch_pickle.load_next(
      io.BytesIO(data), len(data), _no_storage, more=NAMES))


def _no_storage(*_: Any) -> Any:
  raise torch_pickle.TorchFileError('a PyTorch tensor outside of a .pt file')
