"""Names of files as people and lists write them, and the files they mean.

The same name comes composed (NFC) from one system and decomposed (NFD) from
another, and with `\\` or `./` in it. Names that differ in case are different
files here: a message names them, nobody takes them.
"""

import itertools
import os
import pathlib
import unicodedata


def normal(name: str) -> str:
  """Returns the form in which names are compared: NFC, `/`, no `.` parts."""
  name = unicodedata.normalize('NFC', name).replace('\\', '/')
  # There are millions of names, and most are plain.
  is_plain = not ('//' in name or './' in name or name.endswith(('/', '/.')))
  return name if is_plain else pathlib.PurePosixPath(name).as_posix()


def title(name: str) -> str:
  """Returns what stands in for a caption of a file.

  >>> title('trips/beach_2024.jpg')
  'beach 2024'
  """
  stem = pathlib.PurePath(name).stem
  return ' '.join(stem.replace('_', ' ').replace('-', ' ').split()) or stem


class Folders:
  """Folders, each listed once, and not before a name in it is missed."""

  def __init__(self) -> None:
    # Folder → case-folded stem → names, with `/` between them: a folder may
    # have millions.
    self._alike: dict[pathlib.Path, dict[str, str]] = {}

  def find(self, name: str, *folders: pathlib.Path) -> pathlib.Path:
    """Returns the file that a name means, below the first folder that has it.

    Equal names come first; then that one file whose name has the same normal
    form. Where there is none, or more than one, the path as it was named.
    """
    named = [folder / name for folder in folders]
    for path in itertools.chain(named, (
        self._of_normal_form(name, folder) for folder in folders)):
      # Not pathlib's: that raises at NUL and at names that are too long.
      if os.path.isfile(path):
        return path
    return next((path for path, folder in zip(named, folders, strict=True)
                 if folder.is_dir()), named[-1])

  def _of_normal_form(self, name: str, folder: pathlib.Path) -> pathlib.Path:
    for part in pathlib.PurePosixPath(normal(name)).parts:
      found = [name for name in self._names_like(part, folder)
               if unicodedata.normalize('NFC', name) == part]
      folder = folder / (found[0] if len(found) == 1 else part)
    return folder

  def near(self, path: pathlib.Path) -> str:
    """Returns '; there is …' where names differ in case or ending alone."""
    found = sorted(map(str, self._near(path)))
    return f'; there is {" and ".join(map(repr, found))}' if found else ''

  def _near(self, path: pathlib.Path) -> list[pathlib.Path]:
    if path.parent == path:
      return []
    folders = ([path.parent] if os.path.isdir(path.parent)
               else self._near(path.parent))
    return [folder / name for folder in folders
            for name in self._names_like(path.name, folder)]

  def _names_like(self, name: str, folder: pathlib.Path) -> list[str]:
    """Returns what differs from a name in case, form or ending alone."""
    if folder not in self._alike:
      alike: dict[str, str] = {}
      try:
        for found in sorted(os.listdir(folder)):
          key = _alike(found)
          alike[key] = f'{alike[key]}/{found}' if key in alike else found
      except (OSError, ValueError):  # Not there or not readable; NUL in it.
        pass
      self._alike[folder] = alike
    return list(filter(None, self._alike[folder].get(
        _alike(name), '').split('/')))


def _alike(name: str) -> str:
  return pathlib.PurePosixPath(normal(name).casefold()).stem
