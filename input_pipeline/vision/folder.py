"""Finds the pictures of a folder of the user's, and what is not taken of it.

Nothing is opened: a picture is known by its ending. What it really is, its
bytes tell when it is read.
"""

from collections import Counter
from collections import defaultdict
from collections import deque
from collections.abc import Collection, Mapping
import fnmatch
import os
import pathlib
from typing import NamedTuple

from input_pipeline import errors
from input_pipeline.vision import pictures

_SVG = '.svg'
# Folders of small copies and of deleted pictures, and macOS's in archives.
# Others of the kind are hidden: .thumbnails, .Trash-1000, .Trashes.
_SYSTEM = ('@eadir', '#recycle', '#snapshot', '@recycle', '$recycle.bin',
           'recycler', 'lost+found', 'system volume information', '__macosx')
_HIDDEN = 'hidden'
_OTHER = 'of another ending'
_EXCLUDED = 'excluded'
_LINKED = 'link to what is read already'
# Names shown of a reason.
_SHOWN = 3


class Found(NamedTuple):
  """The pictures of a folder.

  Attributes:
    names: of the files below the folder, sorted.
    skipped: reason → names of the files and folders that are not taken.
  """
  names: list[str]
  skipped: Mapping[str, list[str]]

  def lines(self) -> list[str]:
    """Returns what was not taken, a line a reason; names are escaped."""
    result = []
    for reason, names in self.skipped.items():
      shown = [_escaped(name) for name in names[:_SHOWN]]
      if reason == _OTHER:
        shown = [f'{ending or "none"} {count}' for ending, count in Counter(
            _escaped(_ending(name)) for name in names).most_common(2 * _SHOWN)]
      rest = ', …' if len(names) > len(shown) and reason != _OTHER else ''
      result.append(f'{len(names):,} {reason}: {", ".join(shown)}{rest}')
    return result


def find(folder: str | os.PathLike[str],
         exclude: Collection[str] = ()) -> Found:
  """Returns the pictures in a folder and in those below it.

  Patterns, as *.tmp.jpg or trips/2019, exclude the files and folders whose name
  fits, or whose path below the folder.

  Folders that are linked are read as well. Each file is taken once: under its
  own name, where it is below the folder, else under the first link to it. A
  folder that cannot be read, or has no picture, is a UserError.
  """
  if not os.path.isdir(folder):
    raise errors.UserError(f'{folder}: no such folder')
  try:
    os.listdir(folder)
  except OSError as error:
    raise errors.UserError(f'{folder}: {error.strerror}') from error
  walk = _Walk(os.path.realpath(folder), exclude)
  found = Found(sorted(walk.files.values()), {
      reason: sorted(names) for reason, names in sorted(walk.skipped.items())})
  if not found.names:
    passed = '; '.join(found.lines())
    raise errors.UserError(
        f'{folder}: no picture in it or below; allowed are '
        f'{", ".join(sorted(_endings()))}'
        + (f'; passed over: {passed}' if passed else ''))
  return found


class _Walk:
  """A walk through all folders below one, to each real folder once."""

  def __init__(self, root: str, exclude: Collection[str]):
    # Real path of a picture → its name.
    self.files: dict[str, str] = {}
    self.skipped: dict[str, list[str]] = defaultdict(list)
    self._root, self._exclude = root, exclude
    self._seen: set[str] = set()
    # Followed after all folders, so that a file keeps its own name.
    self._links: deque[str] = deque()
    self._linked_files: dict[str, str] = {}
    self._read_below(root, '')
    while self._links:
      self._follow(self._links.popleft())
    for name, real in self._linked_files.items():
      if real in self.files:
        self._skip(_LINKED, name)
      elif os.path.isfile(real):
        self.files[real] = name
      else:
        self._skip('no regular file', name)

  def _follow(self, name: str) -> None:
    try:
      real = os.path.realpath(os.path.join(self._root, name), strict=True)
    except OSError as error:
      self._skip(f'link that leads nowhere ({error.strerror})', name)
      return
    if not os.path.isdir(real):
      if self._is_picture(name):
        self._linked_files[name] = real
    # A folder around the root is a loop, with everything beside it.
    elif real in self._seen or os.path.commonpath([real, self._root]) == real:
      self._skip(_LINKED, name)
    else:
      self._read_below(real, name)

  def _read_below(self, folder: str, name: str) -> None:
    """Reads a real folder and those below it, but follows no link."""

    def below(path: str) -> str:
      return os.path.normpath(
          os.path.join(name, os.path.relpath(path, folder)))

    for here, folders, files in os.walk(folder, onerror=lambda error: (
        self._skip(f'unreadable ({error.strerror})', below(error.filename)))):
      if here in self._seen or _is_ours({*folders, *files}):
        if here not in self._seen:  # Else a link has led into it before.
          self._skip('folder of a run or of prepared data', below(here))
        folders.clear()
        continue
      self._seen.add(here)
      read = []
      for entry in sorted((*folders, *files)):
        path = os.path.join(here, entry)
        is_folder = os.path.isdir(path)
        if os.path.islink(path):
          if not is_folder or self._is_folder(below(path)):
            self._links.append(below(path))
        elif is_folder:
          if self._is_folder(below(path)):
            read.append(entry)
        elif self._is_picture(below(path)):
          if os.path.isfile(path):
            self.files[path] = below(path)
          else:
            self._skip('no regular file', below(path))
      folders[:] = read

  def _is_folder(self, name: str) -> bool:
    """Returns whether a folder of this name is read; else it is counted."""
    last = name.rpartition('/')[2]
    if self._is_excluded(name):
      return self._skip(_EXCLUDED, name)
    if last.startswith('.'):
      return self._skip(_HIDDEN, name)
    if last.casefold() in _SYSTEM:
      return self._skip("of the system's own", name)
    return self._is_utf8(name)

  def _is_picture(self, name: str) -> bool:
    """Returns whether a file of this name is taken; else it is counted."""
    ending = _ending(name)
    if name.rpartition('/')[2].startswith('.'):
      # Settings and the like are not what a user misses.
      return ending in _endings() and self._skip(_HIDDEN, name)
    for format_name, endings in pictures.ENDINGS.items():
      if ending in endings and format_name not in pictures.formats():
        refused = pictures.missing_library(format_name)
        return self._skip(f'{refused.reason} ({refused.detail})', name)
    if ending not in _endings():
      return self._skip(_OTHER, name)
    if self._is_excluded(name):
      return self._skip(_EXCLUDED, name)
    return self._is_utf8(name)

  def _is_excluded(self, name: str) -> bool:
    return any(fnmatch.fnmatchcase(one, pattern) for pattern in self._exclude
               for one in (name, name.rpartition('/')[2]))

  def _is_utf8(self, name: str) -> bool:
    try:
      name.encode()
    except UnicodeEncodeError:
      return self._skip('with a name that is not UTF-8', name)
    return True

  def _skip(self, reason: str, name: str) -> bool:
    self.skipped[reason].append(name)
    return False


def _endings() -> set[str]:
  return {_SVG}.union(
      *(pictures.ENDINGS[name] for name in pictures.formats()))


def _ending(name: str) -> str:
  return pathlib.PurePosixPath(name).suffix.lower()


def _is_ours(names: set[str]) -> bool:
  """Returns whether a folder is a run's workdir, or a prepared dataset."""
  return ({'config.json', 'checkpoints'} <= names
          or {'manifest.json', 'thumbnails'} <= names)


def _escaped(name: str) -> str:
  return os.fsencode(name).decode('utf-8', 'backslashreplace')
