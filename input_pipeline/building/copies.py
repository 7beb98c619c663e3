"""What a prepared dataset keeps of its pictures: a small copy, and a link.

`thumbnails/` has a small copy of each picture and `originals/` a link to its
file, which may be gone by the time it is looked for.
"""

import contextlib
import os
import pathlib

from PIL import Image

FOLDERS = ('thumbnails', 'originals')
_SIDE = 160


def small(folder: str | os.PathLike[str], image_id: str) -> pathlib.Path:
  """Returns where the small copy of a picture lies.

  Args:
    folder: of the prepared dataset.
    image_id: name of the picture.
  """
  return pathlib.Path(folder, 'thumbnails', f'{_flat(image_id)}.webp')


def original(folder: str | os.PathLike[str],
             image_id: str) -> pathlib.Path | None:
  """Returns the file that a picture was read from, None where it is unknown.

  It was there when the dataset was prepared.

  Args:
    folder: of the prepared dataset.
    image_id: name of the picture.
  """
  try:
    return pathlib.Path(folder, 'originals', _flat(image_id)).readlink()
  except OSError:  # Prepared before there were links, or copied without them.
    return None


def keep(folder: str | os.PathLike[str], image_id: str, path: pathlib.Path,
         image: Image.Image) -> None:
  """Writes the small copy and the link.

  Args:
    folder: of the prepared dataset.
    image_id: name of the picture.
    path: its file.
    image: as read from there.

  Raises:
    OSError: the small copy could not be written.
  """
  copy = image.copy()
  copy.thumbnail((_SIDE, _SIDE))
  copy.save(small(folder, image_id), quality=80)
  link = pathlib.Path(folder, 'originals', _flat(image_id))
  # Some file systems have no links: then the small copy has to do.
  with contextlib.suppress(OSError):
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve())


def _flat(image_id: str) -> str:
  return image_id.replace('/', '__')
