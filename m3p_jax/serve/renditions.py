"""Pictures of the collection, as large as a panel shows them.

A file is never handed out as it is: it is decoded, shrunk and written anew,
which leaves out what a camera or an editor put into it, a place for example.
"""

import functools
import io
import pathlib
import threading

from input_pipeline import copies
from input_pipeline import fingerprint
from input_pipeline.vision import pictures
from m3p_jax.searching import index as index_lib

# Pixels of the longer side; a panel is 460 wide, on a fine screen twice that.
_SIDE = 960
# Renditions that are remembered, about 60 kB each.
_KEPT = 200
# Pictures decoded at the same time.
_AT_ONCE = 2


def address(index: index_lib.Index, number: int, *, is_large: bool) -> str:
  """Returns where the page finds a picture.

  A browser keeps what an address gave it: another picture has another one.
  """
  path = (is_large and index.file(number)) or index.thumbnails[number]
  return (f'picture/{number}{"/large" if is_large else ""}'
          f'?v={fingerprint.of_files("/", [path])}')


class Renditions:
  """Large pictures by their number; usable by several threads."""

  def __init__(self, index: index_lib.Index):
    """Args: `index` is that of the collection."""
    self._index = index
    self._decoders = threading.BoundedSemaphore(_AT_ONCE)
    self._render = functools.lru_cache(maxsize=_KEPT)(self._decode)

  def get(self, number: int) -> bytes | None:
    """Returns a picture as WebP, None where its file is not it any more.

    Args:
      number: of the picture in the index.
    """
    path = self._index.file(number)
    if not path:
      return None
    return self._render(number, path, fingerprint.of_files('/', [path]))

  def _decode(self, number: int, path: str, key: str) -> bytes | None:
    del key  # A picture that was edited is another one.
    file, small = pathlib.Path(path), self._index.thumbnails[number]
    with self._decoders:
      try:
        image = pictures.read_file(file).image
      except pictures.PictureError:
        return None
      if small and not copies.is_copy(small, image):
        return None  # Another picture than the one that was found.
      image.thumbnail((_SIDE, _SIDE))
      content = io.BytesIO()
      image.save(content, 'WEBP', quality=85)
    return content.getvalue()
