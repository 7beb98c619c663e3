"""Opens extracted regions in any format, and finds an image's regions by name.

A format is a file of `formats/`; nothing here lists them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
import contextlib
import hashlib
import importlib
import os
import pathlib
import pkgutil
import threading
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import formats
from input_pipeline import regions
from input_pipeline.regions import isolated
from input_pipeline.regions import names as names_lib

_PIECE_BYTES = 2**22


def names() -> list[str]:
  """Returns the names of all formats: the files of `formats/`."""
  return sorted(m.name for m in pkgutil.iter_modules(formats.__path__))


def writers() -> dict[str, type[regions.Writer]]:
  """Returns {format: writer} of those formats that can be written."""
  modules = {name: _module(name) for name in names()}
  return {name: module.Writer for name, module in modules.items()
          if hasattr(module, 'Writer')}


def _module(name: str) -> Any:
  errors.check_choice('--features_format', name, names())
  return importlib.import_module(f'input_pipeline.formats.{name}')


def open_reader(name: str, path: str | os.PathLike) -> regions.Reader:
  """Returns one file of a format, open; UserError where it is none."""
  reader, path = _module(name).Reader, pathlib.Path(path)
  if not path.exists():
    raise errors.UserError(f'{path} does not exist')
  if reader.is_isolated:
    return isolated.Reader(name, path, reader.where)
  with regions.refusing(path):
    return reader(path)


def parts(name: str, path: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the files of a format at a path: itself, or those in a folder."""
  glob, path = _module(name).Reader.glob, pathlib.Path(path)
  folders = file_names.Folders()
  path = folders.find(path.name, path.parent)
  if not path.exists():
    raise errors.UserError(
        f'--features={path} does not exist{folders.near(path)}')
  # An LMDB is a folder, with this file in it.
  if not glob or path.is_file() or (path / 'data.mdb').is_file():
    return [path]
  found = sorted(part for part in path.glob(glob)
                 if not part.name.startswith('.'))
  if not found:
    raise errors.UserError(
        f'--features={path} is a folder without {glob} for {name}')
  return found


class RegionSource:
  """Regions of a format, of one file or of the files of a folder."""

  def __init__(self, name: str, path: str | os.PathLike):
    """Opens the files and looks through them, without reading regions.

    What is no file of the format, or damaged as a whole, is a UserError.
    """
    self.paths = parts(name, path)
    self._name = name
    self._stack = contextlib.ExitStack()
    self._readers: list[regions.Reader] = []
    self._corrected: Counter[str] = Counter()
    self._lock = threading.Lock()
    self._feature_dim = 0
    try:
      for part in self.paths:
        self._readers.append(
            self._stack.enter_context(open_reader(name, part)))
      self.index = names_lib.Index(self._entries())
      self._repeated = {self.index.places[image]: places
                        for image, places in self.index.repeated.items()}
    except BaseException:
      self.close()
      raise

  def _entries(self) -> Iterator[regions.Entry]:
    for number, reader in enumerate(self._readers):
      with regions.refusing(reader.path):
        for entry in reader.entries():
          yield entry._replace(place=(number, entry.place))

  def unused(self, places: Iterable[Any]) -> list[str]:
    """Returns the images here other than those at the places."""
    taken = set(places)
    return [name for name, place in self.index.places.items()
            if place not in taken]

  def where(self, place: Any) -> str:
    """Returns a place in words, with its file."""
    number, inner = place
    return f'{self.paths[number]}, {self._readers[number].where(inner)}'

  def load(self, place: Any) -> regions.RegionSet:
    """Returns checked regions; see `regions.check`.

    Raises:
      RowError: they cannot be used, or others have the same name.
      UserError: the file is damaged as a whole.
    """
    found = self._load(place)
    for again in self._repeated.get(place, ()):
      # Tables have lines twice; but shards may each count their images from 0.
      other = self._load(again)
      if not all(np.array_equal(getattr(found, name), getattr(other, name))
                 for name in found._fields):
        raise regions.RowError(
            'other features of the same name', self.where(again))
    return found

  def _load(self, place: Any) -> regions.RegionSet:
    number, inner = place
    reader = self._readers[number]
    with regions.refusing(reader.path, reader.where(inner)):
      found, corrections = regions.check(reader.load(inner))
    with self._lock:
      self._corrected.update(corrections)
    width = found.features_RF.shape[1]
    if self._feature_dim not in (0, width):
      raise regions.RowError(
          'features of another width', f'{width}, before {self._feature_dim}')
    self._feature_dim = width
    return found

  def _find_feature_dim(self) -> int:
    problem = 'no images'
    for place in self.index.places.values():
      try:
        return self.load(place).features_RF.shape[1]
      except regions.RowError as error:
        problem = f'{self.where(place)}: {error}'
    raise errors.UserError(f'{self.paths[0]}: nothing usable; {problem}')

  def extractor_manifest(self, detector: str = '') -> dict[str, Any]:
    """Returns what all files that one model reads must have in common.

    Of a named detector that is its name, whatever the format; classes that
    the format counts as no other does stay apart.
    """
    reader = _module(self._name).Reader
    found = {'name': 'extracted',
             'feature_dim': self._feature_dim or self._find_feature_dim()}
    if detector:
      return found | {'detector': detector} | (
          {} if reader.shifts_classes else {'class_ids': reader.classes})
    return found | {'format': self._name, 'boxes': reader.boxes,
                    'class_ids': reader.classes}

  def manifest(self) -> dict[str, Any]:
    """Returns where the regions came from and what was found there."""
    found: dict[str, str] = {}
    for reader in self._readers:
      found |= reader.found
    return {'format': self._name, 'images': len(self.index.places),
            'found': found, 'corrected': dict(self._corrected),
            'matched_by': dict(self.index.matched),
            'files': [{'name': path.name, **_checksum(path)}
                      for path in self.paths]}

  def close(self) -> None:
    """Closes the files."""
    self._stack.close()


def _checksum(path: pathlib.Path) -> dict[str, Any]:
  """Returns the size and SHA-256 of a file, or of a folder's files in order."""
  is_folder = path.is_dir()
  files = [path] if not is_folder else sorted(
      file for file in path.rglob('*')
      if file.is_file() and file.name != 'lock.mdb')
  digest, size, unreadable = hashlib.sha256(), 0, 0
  for file in files:
    if is_folder:
      digest.update(os.fsencode(file.relative_to(path).as_posix()) + b'\0')
    try:
      with open(file, 'rb', buffering=0) as opened:
        while piece := opened.read(_PIECE_BYTES):
          size += len(piece)
          digest.update(piece)
    except OSError:
      if not is_folder:
        raise
      unreadable += 1  # Its image was skipped and counted.
  return {'bytes': size, 'sha256': digest.hexdigest()} | (
      {'unreadable': unreadable} if unreadable else {})
