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

SCHEMES = ('gs',)


class Url(epath.gpath.PosixGPath):
  """A path in a bucket, with pathlib's methods."""

  def absolute(self) -> 'Url':
    return self  # Else it would be looked for below the current folder.

  resolve = expanduser = absolute


def of(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the path: pathlib's of a local one, else one that acts like it.

  Raises:
    UserError: a URL of another scheme.
  """
  if isinstance(path, pathlib.Path | Url):
    return path
  scheme, is_url, _ = os.fspath(path).partition('://')
  if not is_url:
    return pathlib.Path(path)
  if scheme not in SCHEMES:
    raise errors.UserError(
        f'{os.fspath(path)}: {scheme}:// cannot be read or written; allowed: a '
        'local path, or gs://BUCKET/…')
  return Url(path)


def is_url(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path lies in a bucket."""
  return isinstance(of(path), Url)


def local(path: str | os.PathLike[str], flag: str) -> pathlib.Path:
  """Returns the path of what only a disk can hold; UserError for a URL."""
  if is_url(path):
    raise errors.UserError(
        f'{flag}={os.fspath(path)}: this needs a local path; copy with '
        '`gcloud storage cp --recursive FROM TO`')
  return pathlib.Path(path)


def load(path: pathlib.Path) -> Any:
  """Returns what `numpy.load` reads, without pickles."""
  source = io.BytesIO(path.read_bytes()) if is_url(path) else path
  return np.load(source, allow_pickle=False)


def copy_tree(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a local file or folder; of a folder, its own files come last.

  They describe the rest: what is cut off is not taken for whole.
  """
  if source.is_dir():
    for path in sorted(source.iterdir(), key=lambda path: path.is_file()):
      copy_tree(path, target / path.name)
  else:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def remove_tree(path: pathlib.Path) -> None:
  """Removes a folder, if it is there."""
  if isinstance(path, Url):
    path.rmtree(missing_ok=True)
  else:
    shutil.rmtree(path, ignore_errors=True)


def size(path: str | os.PathLike[str]) -> int:
  """Returns a file's bytes; 0 where there is none."""
  path = of(path)
  if not path.exists():
    return 0
  found: Any = path.stat()
  return found.length if isinstance(path, Url) else found.st_size
