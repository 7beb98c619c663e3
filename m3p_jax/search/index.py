"""An index as files: vectors, pictures and a manifest, read where they lie.

Memory holds neither the vectors nor the pictures' lines: of the files the
operating system keeps what is used.
Letters: I pictures, E shared space of the dual encoder.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import functools
import hashlib
import json
import os
from typing import Any
import weakref

import numpy as np

from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import fingerprint
from input_pipeline import paths
from m3p_jax.search import cosines as cosines_lib

VECTORS, PICTURES, MANIFEST = 'vectors.npy', 'pictures.jsonl', 'manifest.json'
FORMAT = 'm3p_jax index 1'
# Bits of 64 in which the looks of near duplicates may differ, see `alike`.
SAME_BITS = 8
# Of a picture, beside its name and captions; an older index has fewer.
FIELDS = ('picture', 'original', 'content', 'date', 'look')


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
               vectors_IE: np.ndarray):
    self.pictures, self.vectors_IE = pictures, vectors_IE

  @functools.cached_property
  def _table(self) -> dict[str, list[Any]]:
    """What is needed of all pictures, of which each is read once."""
    folders: dict[str, int] = {}
    table: dict[str, list[Any]] = {
        name: [] for name in ('id', 'key', 'folder', 'day', 'look', 'named')}
    for one in self.pictures:
      image_id = one['image_id']
      table['id'].append(image_id)
      table['key'].append(_key(one))
      table['folder'].append(folders.setdefault(
          image_id.rpartition('/')[0], len(folders)))
      table['day'].append(one.get('date', '')[:10] or 'NaT')
      table['look'].append(int(one.get('look') or '0', 16))
      # Of pictures without captions their names are searched for training.
      table['named'].append(
          one['captions'] == {'en': [file_names.title(image_id)]})
    return table | {'folders': list(folders)}

  @functools.cached_property
  def _gallery(self) -> cosines_lib.Gallery:
    return cosines_lib.Gallery(self.vectors_IE)

  def cosines(self, vector_E: np.ndarray) -> cosines_lib.Cosines:
    """Returns those of all pictures with a unit vector."""
    return cosines_lib.Cosines(self._gallery, vector_E)

  @property
  def image_ids(self) -> list[str]:
    """The pictures' names."""
    return self._table['id']

  @functools.cached_property
  def numbers(self) -> dict[str, int]:
    """{image_id: the picture's number}."""
    return {one: number for number, one in enumerate(self.image_ids)}

  @functools.cached_property
  def keys(self) -> dict[str, int]:
    """{`key`: the picture's number}."""
    return {one: number for number, one in enumerate(self._table['key'])}

  @property
  def folders(self) -> list[str]:
    """The folders of the pictures, '' among them, by `folder_I`."""
    return self._table['folders']

  @functools.cached_property
  def folder_I(self) -> np.ndarray:
    """The number of each picture's folder."""
    return np.array(self._table['folder'], np.int32)

  @functools.cached_property
  def days_I(self) -> np.ndarray:
    """The day that each picture was taken on, NaT where it is not known."""
    return np.array(self._table['day'], 'datetime64[D]')

  @functools.cached_property
  def look_I(self) -> np.ndarray:
    """How each picture looks, see `copies.look`; 0 where it is not known."""
    return np.array(self._table['look'], np.uint64)

  @functools.cached_property
  def has_captions(self) -> bool:
    """Whether its captions are more than the names of the files."""
    return not all(self._table['named'])

  def key(self, number: int) -> str:
    """Returns what a picture is called in addresses: its name and content."""
    return self._table['key'][number]

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
    look = self.look_I[number]
    if not look:  # Not known, or without any contrast.
      return []
    is_alike_I = (np.bitwise_count(self.look_I ^ look) <= SAME_BITS) & (
        self.look_I != 0)
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
    captions = self.pictures[number]['captions'] if self.has_captions else {}
    return (captions.get('en') or [''])[0]

  @functools.cached_property
  def captions(self) -> dict[str, dict[str, list[int]]]:
    """{language: {caption: numbers of its pictures}}, most captions first."""
    found: dict[str, dict[str, list[int]]] = {}
    for number, one in enumerate(self.pictures if self.has_captions else ()):
      for language, texts in one['captions'].items():
        for text in texts:
          found.setdefault(language, {}).setdefault(text, []).append(number)
    return {code: found[code] for code in sorted(
        found, key=lambda code: (-len(found[code]), code))}


def _key(picture: Mapping[str, Any]) -> str:
  return fingerprint.of([picture['image_id'], picture.get('content')])


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


def finish(folder: paths.Path, pictures: Iterable[Mapping[str, Any]],
           manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Writes what belongs to the vectors in a folder, and returns its manifest.
  """
  with (folder / PICTURES).open('w', encoding='utf-8') as file:
    for one in pictures:
      file.write(json.dumps(one, ensure_ascii=False) + '\n')
  count, dim = np.load(folder / VECTORS, mmap_mode='r').shape
  manifest = {
      'format': FORMAT, 'num_pictures': count, 'embedding_dim': dim,
      **manifest, 'sha256': {
          name: _digest(folder / name) for name in (VECTORS, PICTURES)}}
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
  for name, expected in manifest.get('sha256', {}).items():
    found = _digest(folder / name)
    if found != expected:
      raise errors.UserError(
          f'{folder / name} was changed since it was written: its SHA-256 is '
          f'{found[:16]}…; allowed: {expected[:16]}…, as {MANIFEST} says')
  return Index(lines, vectors_IE)


def _digest(path: paths.Path) -> str:
  with path.open('rb') as file:
    digest = hashlib.sha256()
    while part := file.read(2**20):
      digest.update(part)
  return digest.hexdigest()
