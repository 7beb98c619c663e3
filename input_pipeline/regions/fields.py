"""What files say of an image, as arrays of the shapes that they must have.

Letters: R regions, F region feature, C class, N numbers.
"""

import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import regions

FROM_ZERO = 'class + 1, since the file counts from 0 without a background'
FROM_ZERO_OR_TOLD = FROM_ZERO + ', unless `cls_prob` tells otherwise'
# Visual Genome's 1,600 classes and the background.
_WITH_BACKGROUND = 1601
# The fields of detection scripts: mmf's, VOLTA's, MMT's, MILVLG's. Each has
# names of its own; one of them is a slip of VOLTA's.
_BOXES = ('bbox', 'boxes')
_FEATURES = ('features', 'x')
_COUNT = ('num_boxes', 'num_bbox')
_HEIGHT = ('image_height', 'image_h', 'img_h')
_WIDTH = ('image_width', 'image_w', 'img_w', 'iimage_width')
NAMES = (*_BOXES, *_FEATURES, *_COUNT, *_HEIGHT, *_WIDTH, 'obj_id', 'objects',
         'cls_prob')


class Fields:
  """The named values of an image: arrays, numbers or base64.

  Writers of the same format use different names for the same thing: every
  method takes several and reads the first that is there. What is missing or of
  another shape is a RowError.
  """

  def __init__(self, values: Any):
    if not isinstance(values, Mapping):
      raise regions.RowError(
          'not a record', f'found {type(values).__name__}; allowed: a dict')
    self._values = values

  def has(self, *names: str) -> bool:
    """Returns whether one of the names is there, and not None."""
    return any(self._values.get(name) is not None for name in names)

  def get(self, *names: str) -> Any:
    """Returns the raw value of the first name that is there."""
    for name in names:
      if self._values.get(name) is not None:
        return self._values[name]
    found = ', '.join(sorted(map(str, self._values)))[:200] or 'nothing'
    raise regions.RowError(f'no {" or ".join(names)}', f'found {found}')

  def text(self, *names: str) -> str:
    """Returns a name: str, bytes or a number."""
    value = self.get(*names)
    if isinstance(value, bytes):
      return value.decode()
    if isinstance(value, (str, int, np.integer)):
      return str(value)
    raise regions.RowError(
        f'{names[0]} is no name', f'found {type(value).__name__}')

  def whole(self, *names: str) -> int:
    """Returns a whole number ≥ 0: a size in pixels, or a count."""
    return whole(self.get(*names), names[0])

  def count(self, num_rows: int) -> int:
    """Returns how many of an image's rows are regions, not padding."""
    count = self.whole(*_COUNT) if self.has(*_COUNT) else num_rows
    if not 0 < count <= num_rows:
      raise regions.RowError(
          'num_boxes does not fit', f'found {count} for {num_rows} boxes')
    return count

  def matrix(self, *names: str, rows: int | None = None,
             columns: int | None = None) -> np.ndarray:
    """Returns an array of so many rows and columns, of any where None.

    Base64, which has no shape, needs one of the two.
    """
    name, value = names[0], self.get(*names)
    if isinstance(value, (bytes, str)):
      array = _from_base64(value, '<f4', name)
      if columns and array.size % columns == 0:
        array = array.reshape(-1, columns)
      elif rows and array.size % rows == 0:
        array = array.reshape(rows, -1)
      else:
        raise regions.RowError(
            f'{name} has a wrong length',
            f'{array.size} numbers for {rows or "?"} regions')
    else:
      array = _numbers(value, name)
    if array.ndim == 3 and len(array) == 1:
      array = array[0]
    if array.ndim != 2 or not array.size or any(
        wanted not in (None, found)
        for wanted, found in zip((rows, columns), array.shape, strict=True)):
      raise regions.RowError(
          f'{name} has a wrong shape', f'found {list(array.shape)}; allowed: '
          f'[{rows or "R"}, {columns or "F"}]')
    return array

  def vector(self, *names: str, rows: int) -> np.ndarray:
    """Returns int64 [rows]; base64 holds 64-bit numbers."""
    name, value = names[0], self.get(*names)
    array = (_from_base64(value, '<i8', name)
             if isinstance(value, (bytes, str)) else _numbers(value, name))
    if array.size != rows:
      raise regions.RowError(
          f'{name} has a wrong shape',
          f'found {list(array.shape)}; allowed: [{rows}]')
    return array.reshape(rows).astype(np.int64)


def whole(value: Any, name: str) -> int:
  """Returns a whole number ≥ 0 out of a number, text or array of one."""
  if isinstance(value, (str, bytes)):
    value = float(value) if value.strip() else np.nan
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in 'biuf':
    raise regions.RowError(f'{name} is no number', f'found {value!r:.80}')
  number = array.reshape(()).item()
  if not (0 <= number < 2**31 and number == int(number)):
    raise regions.RowError(
        f'{name} is no whole number',
        f'found {number!r}; allowed: 0 or more')
  return int(number)


def _numbers(value: Any, name: str) -> np.ndarray:
  array = np.asarray(value)
  if array.dtype.kind not in 'biuf':
    raise regions.RowError(f'{name} holds no numbers', f'{array.dtype}')
  return array


def _from_base64(field: bytes | str, dtype: str, name: str) -> np.ndarray:
  try:
    data = binascii.a2b_base64(field, strict_mode=True)
  except (ValueError, UnicodeError) as error:
    raise regions.RowError(f'{name} is no base64', str(error)) from error
  if not data or len(data) % np.dtype(dtype).itemsize:
    raise regions.RowError(
        f'{name} has a wrong length', f'{len(data)} bytes of {dtype}')
  return np.frombuffer(data, dtype)


def no_classes(num_regions: int) -> np.ndarray:
  """Returns the class ids of a format that has none: the background's."""
  return np.zeros(num_regions, np.int32)


def from_zero(classes_R: np.ndarray) -> np.ndarray:
  """Returns int32 [R] of classes counted from 0; −1 stands for none."""
  if classes_R.min() < -1 or classes_R.max() >= 2**31 - 1:
    raise regions.RowError(
        'class out of range', f'{classes_R.min()} to {classes_R.max()}')
  return (classes_R + 1).astype(np.int32)


class Detections:
  """Reads the records of detection scripts, all of one file.

  Whether their `objects` count the background is told by `cls_prob`, and must
  be the same in all of them.
  """

  def __init__(self, found: dict[str, str]):
    """Args: `found` is where the decision is written in words."""
    self._shift: int | None = None
    self._found = found

  def read(self, name: str, values: Any) -> regions.RegionSet:
    """Returns an image's regions, without the padding after their count."""
    row = Fields(values)
    boxes_R4 = row.matrix(*_BOXES, columns=4)
    num_rows = len(boxes_R4)
    features_RF = row.matrix(*_FEATURES, rows=num_rows)
    count = row.count(num_rows)
    if row.has('obj_id'):
      classes_R = from_zero(row.vector('obj_id', rows=num_rows)[:count])
    elif row.has('objects'):
      scores_RC = (row.matrix('cls_prob', rows=num_rows)[:count]
                   if row.has('cls_prob') else None)
      classes_R = self._classes(
          row.vector('objects', rows=num_rows)[:count], scores_RC)
    else:
      classes_R = no_classes(count)
    return regions.RegionSet(
        features_RF[:count], boxes_R4[:count], classes_R, row.whole(*_HEIGHT),
        row.whole(*_WIDTH), name)

  def _classes(self, objects_R: np.ndarray,
               scores_RC: np.ndarray | None) -> np.ndarray:
    # Source: mmf, extract_features_vmb.py: with --background the scores keep
    # their first column and `objects` are argmax over all of them, so 0 =
    # background; without, argmax over the others, so 0 is the first class.
    shift = None if scores_RC is None else _shift(objects_R, scores_RC)
    if self._shift is None:
      self._shift = shift
    elif shift not in (None, self._shift):
      raise regions.RowError(
          'classes are counted differently',
          f'objects {objects_R[:3].tolist()}, unlike the images before')
    # Where no scores tell: the extraction script's default.
    shift = 1 if self._shift is None else self._shift
    self._found['class_ids'] = (
        FROM_ZERO if shift else 'as in the file, where 0 is the background')
    return from_zero(objects_R - 1 + shift)


def _shift(objects_R: np.ndarray, scores_RC: np.ndarray) -> int | None:
  """Returns what to add to `objects`, 0 or 1; None where scores do not tell."""
  num_classes = scores_RC.shape[1]
  if num_classes < 2:
    return None
  best_R = scores_RC.argmax(axis=1)
  if (objects_R == best_R).all():
    return 0 if num_classes == _WITH_BACKGROUND else 1
  if (objects_R == best_R + 1).all():
    return 0
  if (objects_R == scores_RC[:, 1:].argmax(axis=1)).all():
    return 1
  return None
