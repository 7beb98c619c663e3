"""A prepared dataset as a searchable collection: pictures, captions, vectors.

Letters: I pictures, C captions, E shared space of the dual encoder.
"""

from collections.abc import Callable, Iterable
import dataclasses
import functools
import io
import json
import os
from typing import Any
import zipfile

from absl import logging
import numpy as np

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import paths
import m3p_jax
from m3p_jax import batch as batch_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax.evaluation import results
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config
from m3p_jax.search import inputs

# From regions, and from captions, to unit vectors [I, E] and [C, E].
Embed = Callable[[batch_lib.Regions], np.ndarray]
EmbedTexts = Callable[[list[str]], np.ndarray]
ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Index:
  """What a search needs of a collection, small enough to keep in a file."""
  image_ids: list[str]
  captions: list[str]  # First English ones; '' where there is none.
  thumbnails: list[str]  # Small copies; '' where there is none.
  originals: list[str]  # Files they were read from; '' where not known.
  vectors_IE: np.ndarray  # Float32, unit length.

  def file(self, number: int) -> str:
    """Returns the file of a picture; '' where it is not there any more."""
    path = self.originals[number]
    return path if path and os.path.isfile(path) else ''


@dataclasses.dataclass(frozen=True)
class Collection:
  """Pictures of a dataset with their regions and captions."""
  image_ids: list[str]
  regions: batch_lib.Regions
  # Language → caption → numbers of the pictures it was written for.
  captions: dict[str, dict[str, list[int]]]


def splits(data_dir: paths.Path, dataset: str, split: str) -> list[str]:
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


def load(data_dir: paths.Path, dataset: str, split: str) -> Collection:
  """Returns the pictures of one split, or of all; see `splits`."""
  # TensorFlow is slow to import, and a search in a stored index needs none.
  from input_pipeline import store
  names = splits(data_dir, dataset, split)
  parts = [store.read_image_text(data_dir, dataset, name) for name in names]
  pictures = store.join_pictures(
      [dataset] * len(parts), [part for part, _ in parts])
  captions: dict[str, dict[str, list[int]]] = {}
  # What the tokenizer reads alike is one caption, as it was first written.
  first_of: dict[Any, str] = {}
  first = 0
  for part, written in parts:
    for row, (picture, language, text) in enumerate(zip(
        written.picture_C, written.languages, written.texts, strict=True)):
      text = first_of.setdefault((language, *written.form(row)), text)
      captions.setdefault(language, {}).setdefault(text, []).append(
          first + int(picture))
    first += len(part.image_ids)
  regions = batch_lib.Regions(
      pictures.image_id_N, pictures.features_NRF, pictures.boxes_NRG,
      pictures.class_ids_NR, pictures.mask_NR)
  return Collection(pictures.image_ids, regions, captions)


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a collection lies; it is read when it is first needed."""
  data_dir: str
  dataset: str  # '' = there is none.
  split: str  # One split, or 'all'.
  # Keeps the vectors of its pictures; None = they are not kept.
  cache_dir: paths.Path | None

  @functools.cached_property
  def _data_key(self) -> str:
    """What the prepared data were when they were first asked for."""
    return weights_lib.fingerprint_of_data(self.data_dir, self.dataset)

  def collection(self, weights: weights_lib.Weights) -> Collection:
    """Returns all of it.

    Raises:
      UserError: there is none, it was not made for these weights, or it was
        prepared again since the index was read.
    """
    return _load_once(self._checked(weights), self.dataset, self.split,
                      self._data_key)

  def index(self, weights: weights_lib.Weights, embed: Embed) -> Index:
    """Returns pictures and vectors, stored or made by `embed`."""
    data_dir = self._checked(weights)

    def make():
      made = _make_index(data_dir / self.dataset, self.collection(weights),
                         embed)
      return {name: np.asarray(value) for name, value in vars(made).items()}

    arrays = self._stored('', weights, make, {
        field.name for field in dataclasses.fields(Index)})
    vectors_IE = arrays.pop('vectors_IE')
    return Index(vectors_IE=vectors_IE, **{
        name: array.tolist() for name, array in arrays.items()})

  def caption_vectors(self, language: str, weights: weights_lib.Weights,
                      embed: EmbedTexts) -> np.ndarray:
    """Returns float32 [C, E] of `captions`, stored or made by `embed`."""
    texts = list(self.captions(language, weights))
    return self._stored(
        f'_{language}', weights, lambda: {'vectors_CE': embed(texts)},
        {'vectors_CE'})['vectors_CE']

  def languages(self, weights: weights_lib.Weights) -> list[str]:
    """Returns the captions' languages, those with most captions first."""
    captions = self.collection(weights).captions
    return sorted(captions, key=lambda code: (-len(captions[code]), code))

  def regions_of(self, image_id: str,
                 weights: weights_lib.Weights) -> batch_lib.Regions:
    """Returns the regions of one picture; UserError where it is not here."""
    if not self.dataset:
      raise errors.UserError(f'{image_id}: there is no such file')
    collection = self.collection(weights)
    if image_id not in collection.image_ids:
      raise errors.UserError(
          f'{image_id}: there is no such file, and no picture of '
          f'{self.dataset} with that name')
    return inputs.row(
        collection.regions, collection.image_ids.index(image_id))

  def captions(self, language: str, weights: weights_lib.Weights
               ) -> dict[str, list[int]]:
    """Returns {caption: numbers of its pictures} of one language that it has.
    """
    captions = self.collection(weights).captions
    self._check_language(language, captions)
    return captions[language]

  def _check_language(self, language: str, allowed: Iterable[str]) -> None:
    if language not in allowed:
      raise errors.UserError(
          f'{self.dataset} has no captions in {language!r}; allowed: '
          f'{", ".join(sorted(allowed))}')

  def _stored(self, suffix: str, weights: weights_lib.Weights,
              make: Callable[[], dict[str, np.ndarray]],
              names: set[str]) -> dict[str, np.ndarray]:
    """Returns named arrays from the file of these weights and data, or made."""
    if not self.cache_dir:
      return make()
    path = self.cache_dir / f'{self.dataset}_{self.split}{suffix}.npz'
    # The small copies are stored by their paths; vectors by these weights in
    # this number format.
    key = fingerprint.of([
        str(paths.of(self.data_dir).absolute()), self._data_key, self.split,
        weights_lib.fingerprint_of(weights.path),
        dataclasses.asdict(weights.config),
        model_config.number_format(weights.dtype), m3p_jax.__version__])
    found = _read_arrays(path, key)
    if any(sharding.of_all(found.keys() != names)):
      try:
        output.check_writable(path.parent, 'the index')
      except errors.UserError as error:
        # Told before vectors are made: they will be made again next time.
        logging.warning('%s; every start computes the vectors anew', error)
      found = make()
      if sharding.is_first():
        _write_arrays(path, key, found)
      sharding.wait_for_all('the index')
    return found

  def _checked(self, weights: weights_lib.Weights) -> paths.Path:
    """Returns the folder of prepared datasets."""
    if not (self.dataset and self.data_dir):
      raise errors.UserError(
          'there is no collection to search: give `data_dir` and `dataset`')
    weights_lib.check_data(weights, self.data_dir, self.dataset)
    return paths.of(self.data_dir)


# Two are enough for a searcher that changes its collection.
@functools.lru_cache(maxsize=2)
def _load_once(data_dir: paths.Path, dataset: str, split: str,
               key: str) -> Collection:
  if weights_lib.fingerprint_of_data(data_dir, dataset) != key:
    raise errors.UserError(
        f'{data_dir / dataset} was prepared again since its index was read: '
        'start again')
  return load(data_dir, dataset, split)


def _make_index(folder: paths.Path, collection: Collection,
                embed: Embed) -> Index:
  captions = [''] * len(collection.image_ids)
  for text, pictures in reversed(collection.captions.get('en', {}).items()):
    for picture in pictures:
      captions[picture] = text
  folder = folder.absolute()
  return Index(
      collection.image_ids, captions,
      [str(copies.small(folder, one) or '') for one in collection.image_ids],
      [str(copies.original(folder, one) or '')
       for one in collection.image_ids],
      embed(collection.regions))


def _read_arrays(path: paths.Path, key: str) -> dict[str, np.ndarray]:
  """Returns the arrays of a file, none where it has not this key."""
  if not path.exists():
    return {}
  try:
    with paths.load(path) as stored:
      if str(stored['key']) != key:
        return {}
      return {name: stored[name] for name in stored.files if name != 'key'}
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    logging.warning('%s cannot be read, made again: %s', path, error)
    return {}


def _write_arrays(path: paths.Path, key: str,
                  arrays: dict[str, np.ndarray]) -> None:
  """Stores arrays under a key, whole or not at all."""
  content = io.BytesIO()
  np.savez(content, allow_pickle=False, key=np.array(key), **arrays)
  try:
    with results.draft(path) as draft:
      draft.write_bytes(content.getvalue())
  except OSError as error:
    # A workdir that cannot be written to can still be searched.
    logging.warning('%s: not stored: %s', path, error)
