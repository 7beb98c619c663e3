"""Pictures that visitors see and bring; none is handed out as it came.

A file of the collection is decoded, shrunk and written anew, which leaves out
what a camera or an editor put into it, a place for example. What a visitor
brings is checked, decoded and turned into regions; nothing of it is kept,
written to disk or served again.
"""

from collections.abc import Callable
import contextlib
import functools
import hashlib
import io
import threading
from typing import Any

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import paths
from input_pipeline.vision import files
from input_pipeline.vision import pictures
from m3p_jax import batch as batch_lib
from m3p_jax.search import index as index_lib

# Pixels of the longer side; a panel is 460 wide, on a fine screen twice that.
_SIDE = 960
# Large pictures that are remembered, about 60 kB each.
_KEPT = 200
# Pictures decoded at the same time, of the collection and of visitors.
_AT_ONCE = 2
# Of a visitor's file.
MAX_BYTES = 12 * 2**20
# A phone's largest pictures; four bytes a pixel while they are decoded.
MAX_PIXELS = 64_000_000
_DECODERS = threading.BoundedSemaphore(_AT_ONCE)

_ADVICE = {
    'svg': 'SVG drawings are not taken here: save it as PNG first.',
    'too large': f'The picture has over {MAX_PIXELS // 10**6} million pixels: '
                 'make it smaller first.',
    'too small': f'The picture is smaller than {pictures.MIN_SIDE} pixels.',
    'empty file': 'The file is empty.',
    'unreadable': 'This is no picture in PNG, JPEG, WebP, GIF, BMP, TIFF or '
                  'AVIF, or it is damaged.'}


def address(index: index_lib.Index, number: int, *,
            is_large: bool) -> str:
  """Returns where the page finds a picture, whatever else comes and goes.

  A browser keeps what an address gave it: another picture has another one.
  """
  path = (is_large and index.file(number)) or index.thumbnail(number)
  return (f'picture/{index.key(number)}{"/large" if is_large else ""}'
          f'?v={fingerprint.of_files("/", [path])}')


class LargePictures:
  """Large pictures of an index; usable by several threads."""

  def __init__(self):
    self._decoders = threading.BoundedSemaphore(_AT_ONCE)
    self._render = functools.lru_cache(maxsize=_KEPT)(self._decode)

  def get(self, index: index_lib.Index, number: int) -> bytes | None:
    """Returns a picture as WebP, None where its file is not it any more."""
    path = index.file(number)
    if not path:
      return None
    return self._render(
        path, index.thumbnail(number), fingerprint.of_files('/', [path]))

  def _decode(self, path: str, small: str, key: str) -> bytes | None:
    del key  # A picture that was edited is another one.
    file = paths.of(path)
    with self._decoders:
      try:
        image = files.read(file).image
      except pictures.PictureError:
        return None
      if small and not copies.is_copy(small, image):
        return None  # Another picture than the one that was found.
      image.thumbnail((_SIDE, _SIDE))
      content = io.BytesIO()
      image.save(content, 'WEBP', quality=85)
    return content.getvalue()


def original(index: index_lib.Index, number: int) -> str | None:
  """Returns the file of a picture, None where it is not what was indexed."""
  path, content = index.file(number), index.pictures[number].get('content')
  if not (path and content):
    return None
  with contextlib.suppress(OSError), open(path, 'rb') as file:
    if hashlib.file_digest(file, 'sha256').hexdigest() == content:
      return path
  return None


class Refused(errors.UserError):
  """A visitor's file that is not taken, and the status of HTTP that says so."""

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


def regions(content: bytes | None, read: Callable[[Any], batch_lib.Regions]
            ) -> batch_lib.Regions:
  """Returns the regions that `read` makes of a visitor's picture.

  Content is None where it was longer than `MAX_BYTES`.

  Raises:
    Refused: no picture that can be used.
  """
  if content is None:
    raise Refused(
        f'The file is larger than {MAX_BYTES // 2**20} MB: make it smaller '
        'first.', 413)
  with _DECODERS:
    try:
      picture = pictures.read(content, max_pixels=MAX_PIXELS)
    except pictures.PictureError as error:
      raise Refused(
          _ADVICE.get(error.reason,
                      f'The picture cannot be used: {error.reason}.'),
          413 if error.reason == 'too large' else 415) from error
    return read(picture.image)
