"""What a format of extracted regions reads and writes, and how it refuses.

Letters: R regions, F region feature.
"""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from input_pipeline.weights import pickles

# More than any image has: a larger claim is damage, or an attack on memory.
MAX_BYTES = 2**28

RowError = errors.RowError


class ImageRegions(NamedTuple):
  """The regions of one image, as a file has them.

  Attributes:
    image_id: the image's name there.
    height: of the image in pixels; 0 where the file does not say.
    width: the same.
    boxes_R4: [R, 4], xyxy in pixels, in 0–1 where `height` is 0.
    features_RF: [R, F], un-normalised.
    class_ids_R: int32 [R], 0 = background or unknown.
  """
  image_id: str
  height: int
  width: int
  boxes_R4: np.ndarray
  features_RF: np.ndarray
  class_ids_R: np.ndarray


class Entry(NamedTuple):
  """Where in a file the regions of an image are.

  Attributes:
    image_id: the image's name there.
    place: what `Reader.load` finds them by; JSON can hold it.
  """
  image_id: str
  place: Any


class Reader:
  """One file of a format, open. Formats override what is not shared."""

  def __init__(self, path: pathlib.Path):
    """Opens the file.

    Raises:
      UserError: the file as a whole is not of this format.
    """
    self.path = path
    # What was decided from the data, in words.
    self.found: dict[str, str] = {}

  def entries(self) -> Iterator[Entry]:
    """Yields every image of the file, in its order, without its regions."""
    raise NotImplementedError

  def load(self, place: Any) -> ImageRegions:
    """Returns the regions at a place of `entries`.

    Raises:
      RowError: they cannot be used.
    """
    raise NotImplementedError

  @staticmethod
  def where(place: Any) -> str:
    """Returns a place in words: the row, key or file."""
    return str(place)

  def close(self) -> None:
    """Closes the file."""

  def __enter__(self):
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


class Writer:
  """Writes a file of a format, image by image; a context that closes it."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def add(self, regions: ImageRegions) -> None:
    """Appends an image.

    Raises:
      UserError: the format has no room for it.
    """
    raise NotImplementedError

  def close(self) -> None:
    """Finishes the file."""

  def __enter__(self):
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


@contextlib.contextmanager
def refusing(path: Any, place: str = ''):
  """Turns whatever damage makes a library raise into the project's errors.

  Args:
    path: for the message.
    place: of the image; '' where the file as a whole is at stake.
  """
  try:
    yield
  except errors.RowError:
    raise
  except errors.UserError as error:
    if not place:
      raise
    if isinstance(error, pickles.ForbiddenNameError):
      # Not damage but an attack: no row of such a file is taken.
      raise errors.UserError(f'{path}, {place}: {error}') from error
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
