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
from types import ModuleType
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import formats
from input_pipeline.region_files import checks
from input_pipeline.region_files import contract
from input_pipeline.region_files import isolated
from input_pipeline.region_files import names as names_lib

_PIECE_BYTES = 2**22


def names() -> list[str]:
  """Returns the names of all formats: the files of `formats/`."""
  return sorted(m.name for m in pkgutil.iter_modules(formats.__path__))


def module_of(name: str) -> ModuleType:
  """Returns a format's module.

  Raises:
    UserError: no such format.
  """
  errors.check_choice('--features_format', name, names())
  return importlib.import_module(f'input_pipeline.formats.{name}')


def open_reader(name: str, path: str | os.PathLike) -> contract.Reader:
  """Returns one file of a format, open.

  Raises:
    UserError: no such format or file, or the file is not of the format.
  """
  module, path = module_of(name), pathlib.Path(path)
  if not path.exists():
    raise errors.UserError(f'{path} does not exist')
  if module.ISOLATED:
    return isolated.Reader(name, path, module.Reader.where)
  with contract.refusing(path):
    return module.Reader(path)


def parts(name: str, path: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the files of the format at a path: itself, or those in a folder.

  Raises:
    UserError: there are none.
  """
  glob, path = module_of(name).GLOB, pathlib.Path(path)
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

    Raises:
      UserError: no such format or file, or a file is damaged as a whole.
    """
    self.name = name
    self.paths = parts(name, path)
    self._module = module_of(name)
    self._stack = contextlib.ExitStack()
    self._readers: list[contract.Reader] = []
    self.notes: Counter[str] = Counter()
    self._lock = threading.Lock()
    self.feature_dim = 0
    try:
      for part in self.paths:
        self._readers.append(
            self._stack.enter_context(open_reader(name, part)))
      self._index = names_lib.Index(self._entries())
      self._repeated = {repr(self._index.places[image]): places
                        for image, places in self._index.repeated.items()}
    except BaseException:
      self.close()
      raise

  def _entries(self) -> Iterator[contract.Entry]:
    for number, reader in enumerate(self._readers):
      with contract.refusing(reader.path):
        for entry in reader.entries():
          yield entry._replace(place=(number, entry.place))

  @property
  def num_images(self) -> int:
    """How many images have regions here."""
    return len(self._index.places)

  @property
  def duplicates(self) -> list[str]:
    """Names that stand there more than once."""
    return list(self._index.repeated)

  def match(self, image_ids: Iterable[str]) -> dict[str, Any]:
    """Returns {image id: place} of the images that have regions here.

    Names are compared in several ways; see `names.Index.match`.
    """
    return self._index.match(image_ids)

  @property
  def matched(self) -> Counter[str]:
    """Rule → how many images the last `match` found by it."""
    return self._index.matched

  @property
  def ambiguous(self) -> set[str]:
    """The images that `match` found more than one answer for."""
    return self._index.ambiguous

  def unused(self, places: Iterable[Any]) -> list[str]:
    """Returns the images here that `match` gave no place for."""
    taken = set(map(repr, places))
    return [name for name, place in self._index.places.items()
            if repr(place) not in taken]

  def where(self, place: Any) -> str:
    """Returns a place in words, with its file."""
    number, inner = place
    return f'{self.paths[number]}, {self._module.Reader.where(inner)}'

  def load(self, place: Any) -> contract.ImageRegions:
    """Returns checked regions; see `checks.check`.

    Raises:
      RowError: they cannot be used, or others have the same name.
      UserError: the file is damaged as a whole.
    """
    regions = self._load(place)
    for other in self._repeated.get(repr(place), ()):
      # Tables have lines twice; but shards may each count their images from 0.
      if not _equal(regions, self._load(other)):
        raise contract.RowError(
            'other features of the same name', self.where(other))
    return regions

  def _load(self, place: Any) -> contract.ImageRegions:
    number, inner = place
    reader = self._readers[number]
    with contract.refusing(reader.path, self.where(place)):
      regions, notes = checks.check(reader.load(inner))
    with self._lock:
      self.notes.update(notes)
    width = regions.features_RF.shape[1]
    if self.feature_dim not in (0, width):
      raise contract.RowError(
          'features of another width', f'{width}, before {self.feature_dim}')
    self.feature_dim = width
    return regions

  def first(self) -> contract.ImageRegions:
    """Returns the first image's regions that can be used.

    Raises:
      UserError: none can.
    """
    problem = 'no images'
    for place in self._index.places.values():
      try:
        return self.load(place)
      except contract.RowError as error:
        problem = f'{self.where(place)}: {error}'
    raise errors.UserError(f'{self.paths[0]}: nothing usable; {problem}')

  def extractor_manifest(self) -> dict[str, Any]:
    """Returns what all files that one model reads must have in common."""
    width = self.feature_dim or self.first().features_RF.shape[1]
    return {'name': 'extracted', 'format': self.name, 'feature_dim': width,
            'boxes': self._module.BOXES, 'class_ids': self._module.CLASSES}

  def manifest(self) -> dict[str, Any]:
    """Returns where the regions came from and what was found there."""
    found: dict[str, str] = {}
    for reader in self._readers:
      if isinstance(reader, isolated.Reader):
        reader.refresh()
      found |= reader.found
    return {'format': self.name, 'images': self.num_images,
            'found': found, 'corrected': dict(self.notes),
            'matched_by': dict(self.matched),
            'files': [{'name': path.name, **_checksum(path)}
                      for path in self.paths]}

  def close(self) -> None:
    """Closes the files."""
    self._stack.close()


def read(name: str, path: str | os.PathLike) -> Iterator[contract.ImageRegions]:
  """Yields the checked regions of every image, in the files' order.

  Raises:
    UserError: anything that cannot be used, with its file and row.
  """
  for part in parts(name, path):
    with open_reader(name, part) as reader:
      with contract.refusing(part):
        for entry in reader.entries():
          where = reader.where(entry.place)
          try:
            with contract.refusing(part, where):
              yield checks.check(reader.load(entry.place))[0]
          except contract.RowError as error:
            raise errors.UserError(f'{part}, {where}: {error}') from error


def _equal(a: contract.ImageRegions, b: contract.ImageRegions) -> bool:
  return (a.height, a.width) == (b.height, b.width) and all(
      np.array_equal(one, other) for one, other in (
          (a.boxes_R4, b.boxes_R4), (a.features_RF, b.features_RF),
          (a.class_ids_R, b.class_ids_R)))


def _checksum(path: pathlib.Path) -> dict[str, Any]:
  """Returns the size and SHA-256 of a file, or of a folder's files in order.
  """
  files = [path] if path.is_file() else sorted(
      p for p in path.rglob('*') if p.is_file() and p.name != 'lock.mdb')
  digest, size, piece = hashlib.sha256(), 0, bytearray(_PIECE_BYTES)
  unreadable = 0
  for file in files:
    if path.is_dir():
      digest.update(os.fsencode(file.relative_to(path).as_posix()) + b'\0')
    try:
      with open(file, 'rb', buffering=0) as opened:
        while count := opened.readinto(piece):
          size += count
          digest.update(memoryview(piece)[:count])
    except OSError:
      if path.is_file():
        raise
      unreadable += 1  # Its image was skipped and counted.
  return {'bytes': size, 'sha256': digest.hexdigest()} | (
      {'unreadable': unreadable} if unreadable else {})
