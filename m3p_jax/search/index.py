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
from input_pipeline import fingerprint
from input_pipeline import paths

VECTORS, PICTURES, MANIFEST = 'vectors.npy', 'pictures.jsonl', 'manifest.json'
FORMAT = 'm3p_jax index 1'


class Index:
  """What a search needs of a collection.

  Attributes:
    pictures: of each its `image_id`, `captions` by language, the paths of its
      small copy (`picture`) and of the file it was read from (`original`), ''
      where there is none, and the digest of its `content`, where it is known.
    vectors_IE: float32, unit length.
  """

  def __init__(self, pictures: Sequence[Mapping[str, Any]],
               vectors_IE: np.ndarray):
    self.pictures, self.vectors_IE = pictures, vectors_IE

  @functools.cached_property
  def image_ids(self) -> list[str]:
    """The pictures' names."""
    return [one['image_id'] for one in self.pictures]

  @functools.cached_property
  def numbers(self) -> dict[str, int]:
    """{image_id: the picture's number}."""
    return {one: number for number, one in enumerate(self.image_ids)}

  @functools.cached_property
  def keys(self) -> dict[str, int]:
    """{`key`: the picture's number}."""
    return {self.key(number): number for number in range(len(self.pictures))}

  def key(self, number: int) -> str:
    """Returns what a picture is called in addresses: its name and content."""
    picture = self.pictures[number]
    return fingerprint.of([picture['image_id'], picture.get('content')])

  def thumbnail(self, number: int) -> str:
    """Returns the path of a small copy; '' where there is none."""
    return self.pictures[number]['picture']

  def file(self, number: int) -> str:
    """Returns the file of a picture; '' where it is not there any more."""
    path = self.pictures[number].get('original', '')
    return path if path and os.path.isfile(path) else ''

  def caption(self, number: int) -> str:
    """Returns a picture's first English caption; '' where there is none."""
    return (self.pictures[number]['captions'].get('en') or [''])[0]

  @functools.cached_property
  def captions(self) -> dict[str, dict[str, list[int]]]:
    """{language: {caption: numbers of its pictures}}, most captions first."""
    found: dict[str, dict[str, list[int]]] = {}
    for number, one in enumerate(self.pictures):
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
