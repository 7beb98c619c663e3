"""The regions of images: what they are, and what formats read and write.

Letters: R regions, F region feature.
"""

from collections.abc import Iterator
import contextlib
import importlib
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from input_pipeline.weights import pickles

# More than any image has: a larger claim is damage, or an attack on memory.
MAX_BYTES = 2**28
# (height, width) of images whose format has none.
UNKNOWN_SIZE = (1, 1)

# Detectors round their boxes: this much outside is cut off, in pixels.
_SLACK = 2.0
_SLACK_OF_ONE = 0.005
_MAX_SIDE = 2**20
_MAX_NAME = 1024

RowError = errors.RowError


class FileError(errors.UserError):
  """A file that is refused as a whole, whatever row it was met in."""


class RegionSet(NamedTuple):
  """The regions of one image.

  Attributes:
    features_RF: float16 or float32, un-normalised.
    boxes_R4: xyxy in pixels of the original; 0–1 where `height` is 0.
    class_ids_R: int32, 0 = background or unknown.
    height: of the original in pixels; 0 where a file does not say.
    width: the same.
    image_id: the image's name in a file; '' for one's own picture.
  """
  features_RF: np.ndarray
  boxes_R4: np.ndarray
  class_ids_R: np.ndarray
  height: int
  width: int
  image_id: str = ''


class Entry(NamedTuple):
  """An image of a file, and what `Reader.load` finds its regions by."""
  image_id: str
  place: Any


class _File:
  """What is open until it is closed."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def close(self) -> None:
    """Closes the file."""

  def __enter__(self):
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


class Reader(_File):
  """One file of a format, open; UserError where it is not of the format.

  Attributes:
    glob: which files of a folder belong to it, '' where a folder is one file.
    is_isolated: whether it is read in a process of its own, since its library
      can crash on damage.
    boxes: in words, what the format says of boxes.
    classes: the same of class ids.
    shifts_classes: whether 0 is the background after that, as everywhere here.
    found: what was decided from the data, in words.
  """
  glob = ''
  is_isolated = False
  shifts_classes = True
  boxes = 'xyxy in pixels'
  classes = ('none in the format: every region has class 0, which is never '
             'masked')

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self.found: dict[str, str] = {}

  def entries(self) -> Iterator[Entry]:
    """Yields every image of the file, in its order, without its regions."""
    raise NotImplementedError

  def load(self, place: Any) -> RegionSet:
    """Returns the regions at a place of `entries`, or raises RowError."""
    raise NotImplementedError

  @staticmethod
  def where(place: Any) -> str:
    """Returns a place in words: the row, key or file."""
    return str(place)


class Writer(_File):
  """A file of a format being written, whole once it is closed."""

  def add(self, image: RegionSet) -> None:
    """Appends an image; UserError where the format has no room for it."""
    raise NotImplementedError


def load_library(name: str) -> ModuleType:
  """Returns a library that only some formats need, or says how to get it."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise errors.UserError(
        f'this format needs {name}, which is not installed; run: python -m pip '
        'install --requirement=requirements-formats.txt '
        '--constraint=constraints.txt') from error


@contextlib.contextmanager
def refusing(path: Any, place: str = ''):
  """Turns whatever damage makes a library raise into the project's errors.

  `place` is the image's; '' where the file as a whole is at stake.
  """
  try:
    yield
  except errors.RowError:
    raise
  except errors.UserError as error:
    if not place or isinstance(error, FileError):
      raise
    if isinstance(error, pickles.ForbiddenNameError):
      # Not damage but an attack: no row of such a file is taken.
      raise FileError(f'{path}, {place}: {error}') from error
    raise RowError('refused', str(error)) from error
  # A damaged file makes libraries raise almost anything.
  except Exception as error:
    found = f'{type(error).__name__}: {str(error)[:200]}'
    if place:
      # The operating system says what is wrong with a file.
      reason = error.strerror if isinstance(error, OSError) else ''
      raise RowError((reason or 'damaged').lower(), found) from error
    raise errors.UserError(
        f'{path} is damaged, or of another format ({found})') from error


def check(image: RegionSet) -> tuple[RegionSet, list[str]]:
  """Returns the regions as records take them, and what was put right.

  Boxes become float32 inside the image, in pixels; where the size is unknown,
  the image counts as 1×1. Features stay float16 or become float32. What
  cannot be used is a RowError.
  """
  name = image.image_id
  if (not name or len(name) > _MAX_NAME or not name.isprintable()
      or '\ufffd' in name):
    raise RowError('image id unfit', f'{name[:80]!r}')
  features_RF = _check_features(np.asarray(image.features_RF))
  boxes_R4 = np.array(image.boxes_R4, np.float32)
  class_ids_R = np.asarray(image.class_ids_R)
  num_regions = len(features_RF)
  if boxes_R4.shape != (num_regions, 4) or class_ids_R.shape != (num_regions,):
    raise RowError(
        'counts differ', f'{num_regions} features, boxes {boxes_R4.shape}, '
        f'classes {class_ids_R.shape}')
  if class_ids_R.min() < 0:
    raise RowError('class out of range', f'{class_ids_R.min()}')
  notes = []
  has_size = bool(image.height or image.width)
  height, width = ((image.height, image.width) if has_size
                   else UNKNOWN_SIZE)
  if not (min(height, width) > 0 and max(height, width) <= _MAX_SIDE):
    raise RowError('image size out of range', f'{width}×{height}')
  slack = _SLACK if has_size else _SLACK_OF_ONE
  edges_2 = boxes_R4[:, 2:].max(axis=0)
  fits, fits_swapped = (
      bool((edges_2 <= (right + slack, bottom + slack)).all())
      for right, bottom in ((width, height), (height, width)))
  if fits_swapped and not fits:
    height, width = width, height
    notes.append('width and height were swapped')
  limits_4 = np.array([width, height] * 2, np.float32)
  _check_boxes(boxes_R4, limits_4, slack)
  return RegionSet(
      features_RF, np.clip(boxes_R4, 0, limits_4),
      class_ids_R.astype(np.int32), height, width, name), notes


def _check_features(features_RF: np.ndarray) -> np.ndarray:
  if features_RF.dtype != np.float16:
    with np.errstate(over='ignore'):
      features_RF = features_RF.astype(np.float32)
  if features_RF.ndim != 2 or not features_RF.size:
    raise RowError('no features', f'shape {features_RF.shape}')
  if not np.isfinite(features_RF).all():
    raise RowError(
        'features are not finite',
        f'{int((~np.isfinite(features_RF)).sum())} NaN or infinite')
  if np.abs(features_RF).max() > np.finfo(np.float16).max:
    raise RowError(
        'features too large for float16', f'{np.abs(features_RF).max()}')
  return features_RF


def _check_boxes(boxes_R4: np.ndarray, limits_4: np.ndarray,
                 slack: float) -> None:
  if not np.isfinite(boxes_R4).all():
    raise RowError('boxes are not finite')
  is_outside = (boxes_R4 < -slack) | (boxes_R4 > limits_4 + slack)
  for reason, is_wrong_R in (
      ('box ends before it begins',
       (boxes_R4[:, 2:] < boxes_R4[:, :2]).any(axis=1)),
      ('box outside the image', is_outside.any(axis=1))):
    if is_wrong_R.any():
      box, (width, height) = boxes_R4[is_wrong_R][0], limits_4[:2].astype(int)
      raise RowError(reason, f'{box.tolist()} in {width}×{height}')
