"""Paths that may lie in a bucket.

Whatever a user can name a place of (data_dir, workdir, weights, an index) goes
through `of`: `pathlib.Path` would make a local folder `gs:` of a URL.
"""

import io
import os
import pathlib
import shutil
from typing import Any

from etils import epath
import numpy as np

from input_pipeline import errors

Path = pathlib.Path  # What `of` returns has its methods, wherever it lies.
SCHEMES = ('gs',)


class Url(epath.gpath.PosixGPath):
  """A path in a bucket."""

  def absolute(self) -> 'Url':
    return self  # epath would put the current folder before it.

  resolve = expanduser = absolute


def of(path: str | os.PathLike[str]) -> Path:
  """Returns the path; UserError for a URL that is none of `SCHEMES`."""
  if isinstance(path, Path | Url):
    return path
  scheme, is_url, _ = os.fspath(path).partition('://')
  if is_url and scheme not in SCHEMES:
    raise errors.UserError(
        f'{os.fspath(path)}: {scheme}:// cannot be read or written; allowed: a '
        'local path, or gs://BUCKET/…')
  return Url(path) if is_url else Path(path)


def is_url(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path lies in a bucket."""
  return isinstance(of(path), Url)


def local(path: str | os.PathLike[str], flag: str) -> Path:
  """Returns the path of what only a disk can hold; UserError for a URL."""
  if is_url(path):
    raise errors.UserError(
        f'{flag}={os.fspath(path)}: this needs a local path; copy with '
        '`gcloud storage cp --recursive FROM TO`')
  return of(path)


def size(path: Path) -> int:
  """Returns a file's bytes; 0 where there is none."""
  found: Any = path.stat() if path.exists() else None
  return 0 if found is None else (
      found.length if isinstance(path, Url) else found.st_size)


def load(path: Path, *, is_mapped: bool = False) -> Any:
  """Returns what `numpy.load` reads, without pickles.

  Args:
    is_mapped: leave an array in its file, where that lies on a disk.
  """
  if is_url(path):
    return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
  return np.load(path, allow_pickle=False, mmap_mode='r' if is_mapped else None)


def copy_tree(source: Path, target: Path) -> None:
  """Copies a file or folder; of a folder, the files that describe it last."""
  if source.is_dir():
    for path in sorted(source.iterdir(), key=lambda path: path.is_file()):
      copy_tree(path, target / path.name)
  else:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def remove_tree(path: Path) -> None:
  """Removes a folder, if it is there."""
  if isinstance(path, Url):
    path.rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)
