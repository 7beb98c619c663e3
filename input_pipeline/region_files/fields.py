"""The named values of one image, as arrays of the shape they must have."""

import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.region_files import contract


class Fields:
  """What a file says of an image: a dict of arrays, numbers or base64.

  Writers of the same format use different names for the same thing: every
  method takes several and reads the first that is there.
  """

  def __init__(self, values: Any):
    if not isinstance(values, Mapping):
      raise contract.RowError(
          'not a record', f'found {type(values).__name__}; allowed: a dict')
    self._values = values

  def has(self, *names: str) -> bool:
    """Returns whether one of the names is there, and not None."""
    return any(self._values.get(name) is not None for name in names)

  def get(self, *names: str) -> Any:
    """Returns the raw value of the first name that is there.

    Raises:
      RowError: none is.
    """
    for name in names:
      if self._values.get(name) is not None:
        return self._values[name]
    raise contract.RowError(
        f'no {" or ".join(names)}',
        f'found {", ".join(sorted(map(str, self._values)))[:200] or "nothing"}')

  def text(self, *names: str) -> str:
    """Returns a name: str, bytes or a number."""
    value = self.get(*names)
    if isinstance(value, bytes):
      return value.decode()
    if isinstance(value, (str, int, np.integer)):
      return str(value)
    raise contract.RowError(
        f'{names[0]} is no name', f'found {type(value).__name__}')

  def whole(self, *names: str) -> int:
    """Returns a whole number ≥ 0: a size in pixels, or a count."""
    return whole(self.get(*names), names[0])

  def matrix(self, *names: str, rows: int | None = None,
             columns: int | None = None) -> np.ndarray:
    """Returns a two-dimensional array of numbers.

    Args:
      names: of the field.
      rows: how many there must be; None = any.
      columns: the same. Base64, which has no shape, needs one of the two.

    Raises:
      RowError: it has another shape, or holds no numbers.
    """
    name, value = names[0], self.get(*names)
    if isinstance(value, (bytes, str)):
      array = _shape(from_base64(value, '<f4', name), rows, columns, name)
    else:
      array = numbers(value, name)
    if array.ndim == 3 and len(array) == 1:
      array = array[0]
    wanted = (rows, columns)
    if array.ndim != 2 or not array.size or any(
        n is not None and n != found
        for n, found in zip(wanted, array.shape, strict=True)):
      raise contract.RowError(
          f'{name} has a wrong shape', f'found {list(array.shape)}; allowed: '
          f'[{rows or "R"}, {columns or "F"}]')
    return array

  def vector(self, *names: str, rows: int) -> np.ndarray:
    """Returns int64 [rows]; base64 holds 64-bit numbers."""
    name, value = names[0], self.get(*names)
    array = (from_base64(value, '<i8', name)
             if isinstance(value, (bytes, str)) else numbers(value, name))
    if array.size != rows:
      raise contract.RowError(
          f'{name} has a wrong shape',
          f'found {list(array.shape)}; allowed: [{rows}]')
    return array.reshape(rows).astype(np.int64)


def _shape(array_N: np.ndarray, rows: int | None, columns: int | None,
           name: str) -> np.ndarray:
  """Returns [rows, columns], of which one follows from the other."""
  if columns and array_N.size % columns == 0:
    return array_N.reshape(-1, columns)
  if rows and array_N.size % rows == 0:
    return array_N.reshape(rows, -1)
  raise contract.RowError(
      f'{name} has a wrong length',
      f'{array_N.size} numbers for {rows or "?"} regions')


def whole(value: Any, name: str) -> int:
  """Returns a whole number ≥ 0 out of a number, text or array of one.

  Raises:
    RowError: it is none.
  """
  if isinstance(value, (str, bytes)):
    value = float(value) if value.strip() else np.nan
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in 'biuf':
    raise contract.RowError(f'{name} is no number', f'found {value!r:.80}')
  number = array.reshape(()).item()
  if not (0 <= number < 2**31 and number == int(number)):
    raise contract.RowError(
        f'{name} is no whole number',
        f'found {number!r}; allowed: 0 or more')
  return int(number)


def numbers(value: Any, name: str) -> np.ndarray:
  """Returns an array of numbers out of an array or nested lists.

  Raises:
    RowError: it holds anything else.
  """
  array = np.asarray(value)
  if array.dtype.kind not in 'biuf':
    raise contract.RowError(f'{name} holds no numbers', f'{array.dtype}')
  return array


def from_base64(field: bytes | str, dtype: str, name: str) -> np.ndarray:
  """Returns the numbers that base64 text stands for, [N].

  Raises:
    RowError: it is no base64, or no whole number of numbers.
  """
  try:
    data = binascii.a2b_base64(field, strict_mode=True)
  except (ValueError, UnicodeError) as error:
    raise contract.RowError(f'{name} is no base64', str(error)) from error
  if not data or len(data) % np.dtype(dtype).itemsize:
    raise contract.RowError(
        f'{name} has a wrong length', f'{len(data)} bytes of {dtype}')
  return np.frombuffer(data, dtype)
