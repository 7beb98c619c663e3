"""A prepared dataset as a searchable collection: pictures, captions, vectors.

Letters: I pictures, C captions, E shared space of the dual encoder.
"""

from collections.abc import Callable, Iterable
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import numpy as np

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import fingerprint
import m3p_jax
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config
from m3p_jax.searching import index as index_lib
from m3p_jax.searching import reading

# From regions to unit vectors [I, E].
Embed = Callable[[batch_lib.Regions], np.ndarray]
# From captions to unit vectors [C, E].
EmbedTexts = Callable[[list[str]], np.ndarray]
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

  def index(self, weights: weights_lib.Weights,
            embed: Embed) -> index_lib.Index:
    """Returns pictures and vectors, stored or made by `embed`.

    Raises:
      UserError: see `collection`.
    """
    data_dir = self._checked(weights)
    path, key = self._file('', weights)
    made = path and index_lib.read(path, key)
    if not made:
      index_lib.warn_unless_kept(path)
      made = _make_index(data_dir, self.dataset, self.collection(weights),
                         embed)
      if path:
        index_lib.write(path, key, made)
    return made

  def caption_vectors(self, language: str, weights: weights_lib.Weights,
                      embed: EmbedTexts) -> np.ndarray:
    """Returns float32 [C, E] of `captions`, stored or made by `embed`.

    Raises:
      UserError: see `captions`.
    """
    texts = list(self.captions(language, weights))
    path, key = self._file(f'_{language}', weights)
    stored = path and index_lib.read_arrays(path, key)
    if stored and len(stored.get('vectors_CE', ())) == len(texts):
      return stored['vectors_CE']
    index_lib.warn_unless_kept(path)
    vectors_CE = embed(texts)
    if path:
      index_lib.write_arrays(path, key, {'vectors_CE': vectors_CE})
    return vectors_CE

  def languages(self, weights: weights_lib.Weights) -> list[str]:
    """Returns the captions' languages, those with most captions first."""
    captions = self.collection(weights).captions
    return sorted(captions, key=lambda code: (-len(captions[code]), code))

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

  def captions(self, language: str, weights: weights_lib.Weights
               ) -> dict[str, list[int]]:
    """Returns {caption: numbers of its pictures} of one language.

    Raises:
      UserError: there are none; see also `collection`.
    """
    captions = self.collection(weights).captions
    self._check_language(language, captions)
    return captions[language]

  def _check_language(self, language: str, allowed: Iterable[str]) -> None:
    if language not in allowed:
      raise errors.UserError(
          f'{self.dataset} has no captions in {language!r}; allowed: '
          f'{", ".join(sorted(allowed))}')

  def _file(self, suffix: str, weights: weights_lib.Weights
            ) -> tuple[pathlib.Path | None, str]:
    """Returns where vectors are kept (None = nowhere), and their key."""
    if not self.cache_dir:
      return None, ''
    # The small copies are stored by their paths; vectors by these weights in
    # this number format.
    key = fingerprint.of([
        os.path.abspath(self.data_dir), self._data_key, self.split,
        weights_lib.fingerprint_of(weights.path),
        dataclasses.asdict(weights.config),
        model_config.number_format(weights.dtype), m3p_jax.__version__])
    return self.cache_dir / f'{self.dataset}_{self.split}{suffix}.npz', key

  def _checked(self, weights: weights_lib.Weights) -> pathlib.Path:
    """Returns the folder of prepared datasets."""
    if not (self.dataset and self.data_dir):
      raise errors.UserError(
          'there is no collection to search: give `data_dir` and `dataset`')
    weights_lib.check_data(weights, self.data_dir, self.dataset)
    return pathlib.Path(self.data_dir)


# Two are enough for a searcher that changes its collection.
@functools.lru_cache(maxsize=2)
def _load_once(data_dir: pathlib.Path, dataset: str, split: str,
               key: str) -> Collection:
  if weights_lib.fingerprint_of_data(data_dir, dataset) != key:
    raise errors.UserError(
        f'{data_dir / dataset} was prepared again since its index was read: '
        'start again')
  return load(data_dir, dataset, split)


def _make_index(data_dir: pathlib.Path, dataset: str, collection: Collection,
                embed: Embed) -> index_lib.Index:
  """Returns the index of a collection.

  Args:
    data_dir: of prepared datasets.
    dataset: its name.
    collection: its pictures.
    embed: makes the vectors.
  """
  captions = [''] * len(collection.image_ids)
  for text, pictures in reversed(collection.captions.get('en', {}).items()):
    for picture in pictures:
      captions[picture] = text
  folder = (data_dir / dataset).absolute()
  return index_lib.Index(
      collection.image_ids, captions,
      [str(copies.small(folder, one) or '') for one in collection.image_ids],
      [str(copies.original(folder, one) or '')
       for one in collection.image_ids],
      embed(collection.regions))
