"""What results are known by: digests of the files and options they come from.

A result is kept with the digest of everything that it was made from; where
that is another one now, it is made again. Pictures are never read: a file is
known by name, size, time and, where links lead to it, by where it lies; a
small one that is no picture is known by what it holds.
"""

from collections.abc import Iterable, Iterator
import functools
import hashlib
import json
import mimetypes
import os
import stat
from typing import Any

from input_pipeline import paths

# Files up to this size are read: lists, captions, JSON.
_SMALL_BYTES = 2**16
# LMDB writes it whenever somebody reads.
_NO_DATA = ('lock.mdb',)

Path = str | os.PathLike[str]


def of(value: Any) -> str:
  """Returns 16 hexadecimal digits of a JSON value."""
  return of_rows([value])


def of_rows(rows: Iterable[Any]) -> str:
  """Returns the digest of JSON values, which may be millions."""
  digest = hashlib.sha256()
  for row in rows:
    digest.update(json.dumps(row, sort_keys=True).encode() + b'\n')
  return digest.hexdigest()[:16]


def of_files(folder: Path, names: Iterable[Path]) -> str:
  """Returns the digest of files below a folder, by whatever path it is reached.

  One that is missing counts as missing.
  """
  return of_rows(_describe(
      os.fspath(folder), (os.fspath(name) for name in names), has_times=True))


def of_path(path: Path, *, skip: Iterable[str] = (),
            has_times: bool = True) -> str:
  """Returns the digest of a file, or of all files in and below a folder.

  Links are followed; hidden files do not count.

  Args:
    skip: folders that do not count: names, or paths without links.
    has_times: whether a file's time counts; without it a copy equals the
      original, which is enough where names are never used twice.
  """
  if paths.is_url(path):
    return of_rows(_describe_remote(
        paths.of(path), frozenset(skip), has_times=has_times))
  if os.path.isdir(path):
    folder, names = os.fspath(path), _walk(path, frozenset(skip))
  else:
    folder, name = os.path.split(os.path.abspath(path))
    names = iter([name])
  return of_rows(_describe(folder, names, has_times=has_times))


def _walk(folder: Path, skip: frozenset[str]) -> Iterator[str]:
  """Yields the files' names below the folder, those of each link once."""
  seen, unreadable = set(), []
  for root, folders, files in os.walk(
      folder, followlinks=True, onerror=unreadable.append):
    place = os.path.realpath(root)
    is_known = place in seen  # A link into itself has no end.
    seen.add(place)
    folders[:] = () if is_known else sorted(
        name for name in folders
        if not name.startswith('.')
        and skip.isdisjoint((name, os.path.join(place, name))))
    below = os.path.relpath(root, folder)
    for name in () if is_known else sorted(files):
      if not name.startswith('.') and name not in _NO_DATA:
        yield name if below == '.' else f'{below}/{name}'
  # Once they can be read, they are gone from this list.
  yield from (f'{error.filename} unreadable' for error in unreadable)


def _describe(folder: str, names: Iterable[str], *,
              has_times: bool) -> Iterator[list[Any]]:
  """Yields what each file is known by; see `of_path`."""
  real_folder = os.path.realpath(folder)

  @functools.cache
  def elsewhere(below: str) -> str:
    place = os.path.realpath(os.path.join(folder, below))
    expected = os.path.normpath(os.path.join(real_folder, below))
    return '' if place == expected else place

  for name in names:
    path = os.path.join(folder, name)
    target = (os.path.realpath(path) if os.path.islink(path)
              else elsewhere(os.path.dirname(name)))
    try:
      status = os.stat(path)
    except (OSError, ValueError):  # A name can be none at all.
      yield [name, target, 'missing']
      continue
    row = [name, target, status.st_size, status.st_mode & stat.S_IRUSR]
    if (status.st_size <= _SMALL_BYTES and stat.S_ISREG(status.st_mode)
        and not _is_picture(os.path.splitext(name)[1])):
      yield [*row, _digest(path)]
    else:
      yield [*row, status.st_mtime_ns] if has_times else row


def _describe_remote(folder: Any, skip: frozenset[str], *, below: str = '',
                     has_times: bool) -> Iterator[list[Any]]:
  """Yields what `_describe` does of a copy on a disk, times excepted."""
  entries = sorted(path for path in folder.iterdir()
                   if not path.name.startswith('.'))
  parts = {path: path.stat() for path in entries}
  for path, status in parts.items():
    name = below + path.name
    if not status.is_directory and path.name not in _NO_DATA:
      row = [name, '', status.length, stat.S_IRUSR]
      if status.length <= _SMALL_BYTES and not _is_picture(path.suffix):
        yield [*row, hashlib.sha256(path.read_bytes()).hexdigest()]
      else:
        yield [*row, status.mtime] if has_times else row
  for path, status in parts.items():
    if status.is_directory and path.name not in skip:
      yield from _describe_remote(path, skip, below=f'{below}{path.name}/',
                                  has_times=has_times)


@functools.cache
def _is_picture(ending: str) -> bool:
  return (mimetypes.guess_type(f'x{ending}')[0] or '').startswith('image/')


def _digest(path: str) -> str:
  try:
    with open(path, 'rb') as file:
      return hashlib.sha256(file.read()).hexdigest()
  except OSError:
    return 'unreadable'
