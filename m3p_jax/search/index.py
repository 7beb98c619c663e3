"""An index as files: vectors, pictures and a manifest, read where they lie.

Memory holds neither the vectors nor the pictures' lines: of the files the
operating system keeps what is used.
Letters: I pictures, E shared space of the dual encoder.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import functools
import hashlib
import io
import json
import os
import re
from typing import Any, NamedTuple
import weakref

import numpy as np

from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import fingerprint
from input_pipeline import paths
from m3p_jax.search import cosines as cosines_lib

VECTORS, PICTURES, MANIFEST = 'vectors.npy', 'pictures.jsonl', 'manifest.json'
COLUMNS = 'columns.npz'
FORMAT = 'm3p_jax index 1'
# Bits of 64 in which the looks of near duplicates may differ, see `alike`.
SAME_BITS = 8
# Lines that are read at once where all are.
_TOGETHER = 1024
# Of a picture, beside its name and captions; an older index has fewer.
FIELDS = ('picture', 'original', 'content', 'date', 'look')


class Columns(NamedTuple):
  """What is needed of all pictures at once.

  Attributes:
    key_I: uint64, digests of name and content.
    folder_I: int32, the number of each picture's folder.
    day_I: the day that each was taken on, NaT where it is not known.
    look_I: uint64, see `copies.look`; 0 where it is not known.
    folders: the folders by their numbers, '' among them.
    has_captions: bool; captions are more than the names of the files.
  """
  key_I: np.ndarray
  folder_I: np.ndarray
  day_I: np.ndarray
  look_I: np.ndarray
  folders: np.ndarray
  has_captions: Any


def _columns(pictures: Iterable[Mapping[str, Any]]) -> Columns:
  """Returns the columns of pictures, each of which is looked at once."""
  folders: dict[str, int] = {}
  rows, has_captions = [], False
  for one in pictures:
    image_id = one['image_id']
    rows.append((
        int(fingerprint.of([image_id, one.get('content')]), 16),
        folders.setdefault(image_id.rpartition('/')[0], len(folders)),
        one.get('date', '')[:10] or 'NaT', int(one.get('look') or '0', 16)))
    # Of pictures without captions their names are searched for training.
    has_captions = has_captions or (
        one['captions'] != {'en': [file_names.title(image_id)]})
  table_I = np.array(rows, [('key', np.uint64), ('folder', np.int32),
                            ('day', 'datetime64[D]'), ('look', np.uint64)])
  return Columns(
      **{f'{name}_I': np.ascontiguousarray(table_I[name])
         for name in ('key', 'folder', 'day', 'look')},
      folders=np.array(list(folders), np.str_), has_captions=has_captions)


class Index:
  """What a search needs of a collection.

  Attributes:
    pictures: of each its `image_id`, `captions` by language, the paths of its
      small copy (`picture`) and of the file it was read from (`original`), ''
      where there is none, and where they are known the digest of its
      `content`, its `date` and its `look` (see `copies.look`).
    vectors_IE: float32, unit length.
  """

  def __init__(self, pictures: Sequence[Mapping[str, Any]],
               vectors_IE: np.ndarray, columns: Columns | None = None):
    self.pictures, self.vectors_IE = pictures, vectors_IE
    self._given = columns

  @functools.cached_property
  def columns(self) -> Columns:
    """What is needed of all pictures; an older index has to be read for it."""
    return self._given or _columns(self.pictures)

  @functools.cached_property
  def _gallery(self) -> cosines_lib.Gallery:
    return cosines_lib.Gallery(self.vectors_IE)

  def cosines(self, vector_E: np.ndarray) -> cosines_lib.Cosines:
    """Returns those of all pictures with a unit vector."""
    return cosines_lib.Cosines(self._gallery, vector_E)

  @functools.cached_property
  def image_ids(self) -> list[str]:
    """The pictures' names."""
    return [one['image_id'] for one in self.pictures]

  def image_id(self, number: int) -> str:
    """Returns a picture's name."""
    return self.pictures[number]['image_id']

  @functools.cached_property
  def numbers(self) -> dict[str, int]:
    """{image_id: the picture's number}."""
    return {one: number for number, one in enumerate(self.image_ids)}

  @property
  def folders(self) -> list[str]:
    """The folders of the pictures, '' among them, by `columns.folder_I`."""
    return self.columns.folders.tolist()

  def key(self, number: int) -> str:
    """Returns what a picture is called in addresses: its name and content."""
    return f'{self.columns.key_I[number]:016x}'

  def find(self, key: str) -> int | None:
    """Returns the number of the picture that is called so, None = no one is."""
    if not re.fullmatch('[0-9a-f]{16}', key):
      return None
    found = np.flatnonzero(self.columns.key_I == np.uint64(int(key, 16)))
    return int(found[-1]) if len(found) else None

  def date(self, number: int) -> str:
    """Returns when a picture was taken, as ISO 8601; '' = not known."""
    return self.pictures[number].get('date', '')

  def alike(self, number: int) -> list[int]:
    """Returns the near duplicates of a picture, in the index's order.

    Of 600 photographs no two differ in fewer than 12 bits of their looks; of
    120 copies of them (cropped by 3 %, 150 pixels wide, JPEG of quality 40,
    brighter, grey) 119 in at most 8. Cosines of their vectors overlap: 0.93
    between strangers, 0.81 to a grey copy. Drawings of a series, as clock faces
    are, count as the same: of 404,550 pairs of emoji 1,009 do.
    """
    look_I = self.columns.look_I
    if not look_I[number]:  # Not known, or without any contrast.
      return []
    is_alike_I = (look_I != 0) & (
        np.bitwise_count(look_I ^ look_I[number]) <= SAME_BITS)
    is_alike_I[number] = False
    return np.flatnonzero(is_alike_I).tolist()

  def thumbnail(self, number: int) -> str:
    """Returns the path of a small copy; '' where there is none."""
    return self.pictures[number]['picture']

  def file(self, number: int) -> str:
    """Returns the file of a picture; '' where it is not there any more."""
    path = self.pictures[number].get('original', '')
    return path if path and os.path.isfile(path) else ''

  def caption(self, number: int) -> str:
    """Returns a picture's first English caption; '' where there is none.

    A file's name is none.
    """
    if not self.columns.has_captions:
      return ''
    return (self.pictures[number]['captions'].get('en') or [''])[0]

  @functools.cached_property
  def captions(self) -> dict[str, dict[str, list[int]]]:
    """{language: {caption: numbers of its pictures}}, most captions first."""
    found: dict[str, dict[str, list[int]]] = {}
    for number, one in enumerate(
        self.pictures if self.columns.has_captions else ()):
      for language, texts in one['captions'].items():
        for text in texts:
          found.setdefault(language, {}).setdefault(text, []).append(number)
    return {code: found[code] for code in sorted(
        found, key=lambda code: (-len(found[code]), code))}


class _Lines(collections.abc.Sequence):
  """The JSON values of a file's lines, each read when it is asked for."""

  def __init__(self, path: paths.Path):
    with path.open('rb') as file:
      self._ends = np.cumsum([0, *map(len, file)])
    if paths.is_url(path):
      content = path.read_bytes()
      self._read = lambda start, end: content[start:end]
    else:
      # Not mapped: the system would map what lies around a line as well.
      number = os.open(path, os.O_RDONLY)
      weakref.finalize(self, os.close, number)
      self._read = lambda start, end: os.pread(number, end - start, start)

  def __len__(self):
    return len(self._ends) - 1

  def __getitem__(self, number):
    if not -len(self) <= number < len(self):
      raise IndexError(number)
    number %= len(self)
    return json.loads(self._read(self._ends[number], self._ends[number + 1]))

  def __iter__(self):
    for first in range(0, len(self), _TOGETHER):
      last = min(first + _TOGETHER, len(self))
      yield from map(json.loads, self._read(
          self._ends[first], self._ends[last]).splitlines())


def finish(folder: paths.Path, pictures: Iterable[Mapping[str, Any]],
           manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Writes what belongs to the vectors in a folder, and returns its manifest.
  """
  with (folder / PICTURES).open('w', encoding='utf-8') as file:
    for one in pictures:
      file.write(json.dumps(one, ensure_ascii=False) + '\n')
  columns = io.BytesIO()  # A file in a bucket cannot be written to and fro.
  np.savez(columns, allow_pickle=False, **_columns(
      _Lines(folder / PICTURES))._asdict())
  (folder / COLUMNS).write_bytes(columns.getvalue())
  count, dim = np.load(folder / VECTORS, mmap_mode='r').shape
  manifest = {
      'format': FORMAT, 'num_pictures': count, 'embedding_dim': dim,
      **manifest, 'sha256': {
          name: _digest(folder / name)
          for name in (VECTORS, PICTURES, COLUMNS)}}
  (folder / MANIFEST).write_text(
      json.dumps(manifest, indent=2, ensure_ascii=False), encoding='utf-8')
  return manifest


def read_manifest(folder: paths.Path) -> dict[str, Any]:
  """Returns the manifest of an index; UserError where there is none."""
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path} cannot be read: {error}') from error
  if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
    found = manifest.get('format') if isinstance(manifest, dict) else manifest
    raise errors.UserError(
        f'{path}: format is {found!r}; allowed: {FORMAT!r}')
  return manifest


def load(folder: paths.Path) -> Index:
  """Returns the index of a folder.

  Raises:
    UserError: its files do not fit each other, or are not what was written.
  """
  manifest = read_manifest(folder)
  vectors, pictures = folder / VECTORS, folder / PICTURES
  try:
    vectors_IE = paths.load(vectors, is_mapped=True)
    lines = _Lines(pictures)
  except (OSError, ValueError, EOFError) as error:
    raise errors.UserError(f'{vectors} cannot be read: {error}') from error
  count, dim = manifest['num_pictures'], manifest['embedding_dim']
  if len(lines) != len(vectors_IE):
    raise errors.UserError(
        f'{vectors} has {len(vectors_IE)} rows, {PICTURES} {len(lines)}; '
        'allowed: as many')
  if vectors_IE.shape != (count, dim) or vectors_IE.dtype != np.float32:
    raise errors.UserError(
        f'{vectors} holds {vectors_IE.dtype} {list(vectors_IE.shape)}; '
        f'allowed: float32 [{count}, {dim}], as {MANIFEST} says')
  # An index of an earlier version does not tell.
  digests = manifest.get('sha256', {})
  for name, expected in digests.items():
    try:
      found = _digest(folder / name)
    except OSError as error:
      raise errors.UserError(
          f'{folder / name} cannot be read: {error}') from error
    if found != expected:
      raise errors.UserError(
          f'{folder / name} was changed since it was written: its SHA-256 is '
          f'{found[:16]}…; allowed: {expected[:16]}…, as {MANIFEST} says')
  if COLUMNS not in digests:
    return Index(lines, vectors_IE)
  with paths.load(folder / COLUMNS) as columns:
    return Index(lines, vectors_IE, Columns(**columns))


def _digest(path: paths.Path) -> str:
  with path.open('rb') as file:
    digest = hashlib.sha256()
    while part := file.read(2**20):
      digest.update(part)
  return digest.hexdigest()
