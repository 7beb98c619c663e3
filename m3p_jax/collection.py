"""A prepared dataset as a searchable collection: pictures, captions, vectors.

Letters: I pictures, E shared space of the dual encoder.
"""

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import zipfile

from absl import logging
import numpy as np

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import reading
from m3p_jax.evaluation import weights as weights_lib

# From regions to unit vectors [I, E].
Embed = Callable[[batch_lib.Regions], np.ndarray]
ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Collection:
  """Pictures of a dataset with their regions and captions.

  Attributes:
    image_ids: the pictures' names.
    regions: of all pictures.
    captions: language → caption → numbers of the pictures it was written for.
  """
  image_ids: list[str]
  regions: batch_lib.Regions
  captions: dict[str, dict[str, list[int]]]


@dataclasses.dataclass(frozen=True)
class Index:
  """What a search needs of a collection, small enough to keep in a file.

  Attributes:
    image_ids: the pictures' names.
    captions: the pictures' first English captions; '' where there is none.
    paths: the pictures' small copies; '' where there is none.
    vectors_IE: float32, unit length.
  """
  image_ids: list[str]
  captions: list[str]
  paths: list[str]
  vectors_IE: np.ndarray


def splits(data_dir: pathlib.Path, dataset: str, split: str) -> list[str]:
  """Returns the splits asked for: one, or all that have records.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  path = data_dir / dataset / 'manifest.json'
  if not path.exists():
    raise errors.UserError(
        f'{path}: not there; prepare it with `python -m '
        f'input_pipeline.prepare --dataset={dataset} --data_dir={data_dir}`')
  counts = json.loads(path.read_text())['counts']
  present = [name for name, count in counts.items() if count]
  if split != ALL and split not in present:
    raise errors.UserError(
        f'split {split!r} of {dataset} in {data_dir}: allowed: '
        f'{", ".join([ALL, *present])}')
  return present if split == ALL else [split]


def load(data_dir: pathlib.Path, dataset: str, split: str) -> Collection:
  """Returns the pictures of one split, or of all.

  Raises:
    UserError: see `splits`.
  """
  # TensorFlow is slow to import, and a search in a stored index needs none.
  from input_pipeline import join
  from input_pipeline import store
  names = splits(data_dir, dataset, split)
  parts = [store.read_image_text(data_dir, dataset, name) for name in names]
  pictures = join.pictures(
      [dataset] * len(parts), [part for part, _ in parts])
  captions: dict[str, dict[str, list[int]]] = {}
  first = 0
  for part, written in parts:
    for picture, language, text in zip(
        written.picture_C, written.languages, written.texts, strict=True):
      captions.setdefault(language, {}).setdefault(text, []).append(
          first + int(picture))
    first += len(part.image_ids)
  regions = batch_lib.Regions(
      pictures.image_id_N, pictures.features_NRF, pictures.boxes_NRG,
      pictures.class_ids_NR, pictures.mask_NR)
  return Collection(pictures.image_ids, regions, captions)


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a collection lies; it is read when it is first needed.

  Attributes:
    data_dir: of prepared datasets.
    dataset: its name.
    split: one split, or 'all'.
    cache_dir: keeps the vectors of its pictures; None = they are not kept.
  """
  data_dir: str
  dataset: str
  split: str
  cache_dir: pathlib.Path | None

  def collection(self, weights: weights_lib.Weights) -> Collection:
    """Returns all of it.

    Raises:
      UserError: there is none, or it was not made for these weights.
    """
    return _load_once(self._checked(weights), self.dataset, self.split)

  def index(self, weights: weights_lib.Weights, embed: Embed) -> Index:
    """Returns pictures and vectors, stored or made by `embed`.

    Raises:
      UserError: see `collection`.
    """
    data_dir = self._checked(weights)
    key = _fingerprint(data_dir / self.dataset, self.split, weights.path)
    path = self.cache_dir and (
        self.cache_dir / f'{self.dataset}_{self.split}.npz')
    made = path and _stored(path, key)
    if not made:
      made = _make_index(data_dir, self.dataset, self.collection(weights),
                         embed)
      if path:
        _store(path, key, made)
    return made

  def regions_of(self, image_id: str,
                 weights: weights_lib.Weights) -> batch_lib.Regions:
    """Returns the regions of one picture.

    Raises:
      UserError: it is not here; see also `collection`.
    """
    if not self.dataset:
      raise errors.UserError(f'{image_id}: there is no such file')
    collection = self.collection(weights)
    if image_id not in collection.image_ids:
      raise errors.UserError(
          f'{image_id}: there is no such file, and no picture of '
          f'{self.dataset} with that name')
    return reading.row(
        collection.regions, collection.image_ids.index(image_id))

  def texts(self, language: str, weights: weights_lib.Weights) -> list[str]:
    """Returns the distinct captions of one language.

    Raises:
      UserError: there are none; see also `collection`.
    """
    captions = self.collection(weights).captions
    if language not in captions:
      raise errors.UserError(
          f'{self.dataset} has no captions in {language!r}; allowed: '
          f'{", ".join(sorted(captions))}')
    return list(captions[language])

  def _checked(self, weights: weights_lib.Weights) -> pathlib.Path:
    """Returns the folder of prepared datasets."""
    if not (self.dataset and self.data_dir):
      raise errors.UserError(
          'there is no collection to search: give `data_dir` and `dataset`')
    weights_lib.check_data(weights, self.data_dir, self.dataset)
    return pathlib.Path(self.data_dir)


# Two are enough for a searcher that changes its collection.
_load_once = functools.lru_cache(maxsize=2)(load)


def _fingerprint(folder: pathlib.Path, split: str,
                 checkpoint: pathlib.Path) -> str:
  """Returns a hash that changes with the weights and the prepared data."""
  parts = [f'{path.resolve()} {path.stat().st_mtime_ns}' for path in (
      folder / 'manifest.json', checkpoint / 'config.json')]
  return hashlib.sha256(
      '\n'.join([*parts, split]).encode()).hexdigest()[:16]


def _stored(path: pathlib.Path, key: str) -> Index | None:
  """Returns the index in the file, None where it has not this key."""
  if not path.exists():
    return None
  try:
    with np.load(path) as stored:
      if str(stored['key']) != key:
        return None
      return Index(
          stored['image_ids'].tolist(), stored['captions'].tolist(),
          stored['paths'].tolist(), stored['vectors_IE'])
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    logging.warning('%s cannot be read, made again: %s', path, error)
    return None


def _store(path: pathlib.Path, key: str, made: Index) -> None:
  draft = path.with_name(f'.{path.stem}.{os.getpid()}.npz')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        draft, key=np.array(key), vectors_IE=made.vectors_IE,
        image_ids=np.array(made.image_ids, np.str_),
        captions=np.array(made.captions, np.str_),
        paths=np.array(made.paths, np.str_))
    os.replace(draft, path)
  except OSError as error:
    # A workdir that cannot be written to can still be searched.
    logging.warning('%s: the index is not stored: %s', path, error)


def _make_index(data_dir: pathlib.Path, dataset: str, collection: Collection,
                embed: Embed) -> Index:
  """Returns the index of a collection.

  Args:
    data_dir: of prepared datasets.
    dataset: its name.
    collection: its pictures.
    embed: makes the vectors.
  """
  from input_pipeline import builder  # Imports TensorFlow.
  captions = [''] * len(collection.image_ids)
  for text, pictures in reversed(collection.captions.get('en', {}).items()):
    for picture in pictures:
      captions[picture] = text
  folder = (data_dir / dataset / 'thumbnails').absolute()
  paths = [folder / builder.thumbnail_name(image_id)
           for image_id in collection.image_ids]
  return Index(
      collection.image_ids, captions,
      [str(path) if path.exists() else '' for path in paths],
      embed(collection.regions))
