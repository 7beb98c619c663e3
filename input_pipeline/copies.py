"""What a prepared dataset keeps of its pictures: a small copy, and a path.

`thumbnails/` has a small copy of each picture; its file, which may be gone by
the time it is looked for, is named by the rows of `known.py`, or by a link in
`originals/`. Both are named by a hash of the picture's name: that may be longer
than a file's may be, and no two share one.
"""

import contextlib
import datetime
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import shutil

import numpy as np
from PIL import Image

from input_pipeline import paths

FOLDERS = ('thumbnails', 'originals')
# Of a split's pictures: each begins with the picture's name and its file.
ROWS = 'files-{}.json'
_SIDE = 160
# Levels by which a pixel of an equal picture may differ: Pillow's encoder
# changes with its version.
_CHANGE = 64
# Where a camera writes when it took a picture.
_EXIF, _TAKEN = 0x8769, 0x9003
_DATE = re.compile(r'(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)')


def small(folder: str | os.PathLike[str],
          image_id: str) -> pathlib.Path | None:
  """Returns the small copy of a picture, None where there is none."""
  hashed = paths.of(folder) / 'thumbnails' / f'{_hash(image_id)}.webp'
  # Data of version 1 have the name itself, where it was short enough.
  named = hashed.with_name(f'{_flat(image_id)}.webp')
  for path in (hashed, named):
    with contextlib.suppress(OSError):  # Longer than a file's name may be.
      if path.is_file():
        return path
  return None


def original(folder: str | os.PathLike[str],
             image_id: str) -> pathlib.Path | None:
  """Returns the file that a picture was read from, None where it is unknown.

  It was there when the dataset was prepared.
  """
  if paths.is_url(folder):
    return None  # A bucket has no links.
  found = _paths(os.fspath(folder), time_of(folder)).get(image_id)
  if found:
    return pathlib.Path(found)
  for name in (_hash(image_id), _flat(image_id)):
    # Prepared before there were links, or copied without them.
    with contextlib.suppress(OSError):
      return pathlib.Path(folder, 'originals', name).readlink()
  return None


@functools.lru_cache(maxsize=2)
def _paths(folder: str, time_ns: int) -> dict[str, str]:
  """Returns {image_id: its file} of pictures that are known again."""
  del time_ns  # Prepared again, it is another folder.
  return {row[0]: row[1] for path in pathlib.Path(folder).glob(
      f'*/*/{ROWS.format("*")}') for row in json.loads(path.read_text())}


def time_of(folder: str | os.PathLike[str]) -> int:
  """Returns when a dataset was prepared; 0 = it is not."""
  try:
    return os.stat(os.path.join(folder, 'manifest.json')).st_mtime_ns
  except OSError:
    return 0


def keep(folder: str | os.PathLike[str], image_id: str,
         path: pathlib.Path | None, image: Image.Image) -> None:
  """Writes the small copy, and the link to the picture's file, if it has one.

  Raises:
    OSError: the small copy could not be written.
  """
  small_of(folder, image_id).write_bytes(shrink(image))
  link = pathlib.Path(folder, 'originals', _hash(image_id))
  # Some file systems have no links: then the small copy has to do.
  with contextlib.suppress(OSError):
    link.unlink(missing_ok=True)
    if path:
      link.symlink_to(path.resolve())


def link(source: str | os.PathLike[str],
         target: str | os.PathLike[str]) -> None:
  """Makes a second name of a file, or a copy where there can be none."""
  with contextlib.suppress(FileNotFoundError):
    os.unlink(target)
  try:
    os.link(source, target)
  except OSError:
    shutil.copyfile(source, target)


def small_of(folder: str | os.PathLike[str], image_id: str) -> pathlib.Path:
  """Returns where the small copy of a picture is put."""
  return pathlib.Path(folder, 'thumbnails', f'{_hash(image_id)}.webp')


def is_copy(path: str | os.PathLike[str], image: Image.Image) -> bool:
  """Returns whether a small copy could be one of this picture.

  Args:
    path: of the small copy.
    image: as read from the file that may have been replaced since.
  """
  try:
    with Image.open(path) as stored, Image.open(
        io.BytesIO(shrink(image))) as made:
      if stored.size != made.size:
        return False
      change = np.subtract(
          *(np.asarray(one.convert('RGB')) for one in (stored, made)),
          dtype=np.int16)
      return bool(np.abs(change).max() <= _CHANGE)
  except OSError:
    return False


def shrink(image: Image.Image) -> bytes:
  """Returns the small copy of a picture."""
  copy = image.copy()
  copy.thumbnail((_SIDE, _SIDE))
  content = io.BytesIO()
  copy.save(content, 'WEBP', quality=80)
  return content.getvalue()


def date(exif: Image.Exif) -> str:
  """Returns when a camera took a picture, as 2024-05-31T12:00:00; '' = unknown.
  """
  taken = exif.get_ifd(_EXIF).get(_TAKEN)
  found = _DATE.match(taken) if isinstance(taken, str) else None
  text = '{}-{}-{}T{}'.format(*found.groups()) if found else ''
  try:
    datetime.datetime.fromisoformat(text)
  except ValueError:  # Cameras whose clock was never set write zeros.
    return ''
  return text


def look(image: Image.Image) -> str:
  """Returns 64 bits of how a picture looks, as hexadecimal digits.

  Each says of 8 times 8 places whether it is brighter than its neighbour: other
  sizes, formats, colours and light change few of them.
  Source: the difference hash of N. Krawetz, 2013.
  """
  pixels_89 = np.asarray(image.convert('L').resize(
      (9, 8), Image.Resampling.LANCZOS, reducing_gap=3.0))
  bits_88 = pixels_89[:, 1:] > pixels_89[:, :-1]
  return np.packbits(bits_88).tobytes().hex()


def _hash(image_id: str) -> str:
  return hashlib.sha256(
      image_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]


def _flat(image_id: str) -> str:
  return image_id.replace('/', '__')
