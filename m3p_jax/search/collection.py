"""A prepared dataset as a searchable collection: its index and its regions.

Letters: I pictures, C captions, E shared space of the dual encoder.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import io
import json
import tempfile
from typing import Any
import zipfile

from absl import logging
import jax
import numpy as np

from input_pipeline import console
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import items
from input_pipeline import paths
import m3p_jax
from m3p_jax import batch as batch_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax.evaluation import results
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config
from m3p_jax.search import index as index_lib

# From regions, and from captions, to unit vectors [I, E] and [C, E].
Embed = Callable[[batch_lib.Regions], np.ndarray]
EmbedTexts = Callable[[list[str]], np.ndarray]
ALL = 'all'
# Pictures whose regions are in memory while their vectors are made.
_AT_ONCE = 256


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


class Records:
  """The records of one split, or of all, read when they are asked for."""

  def __init__(self, data_dir: paths.Path, dataset: str, split: str):
    # TensorFlow is slow to import, and a search in a stored index needs none.
    from input_pipeline import index as places
    from input_pipeline import known
    from input_pipeline import records
    from input_pipeline import store
    from input_pipeline import streamed
    self._folder = data_dir / dataset
    self._parts, self._facts = [], []
    for name in splits(data_dir, dataset, split):
      builder = store.open_builder(data_dir, dataset, name)
      part = store.open_index(builder, name)
      self._parts.append(part)
      self._facts += known.facts(
          str(builder.data_dir), name, len(part.file_N))
    self.regions = streamed.read_pictures(
        places.join(self._parts), records.kind_of(builder.info.features))

  def pictures(self) -> list[dict[str, Any]]:
    """Returns what an index says of each picture."""
    from input_pipeline import store
    # What the tokenizer reads alike is one caption, as it was first written.
    first_of: dict[Any, str] = {}
    folder, found = self._folder.absolute(), []
    for part in self._parts:
      image_ids, written = store.read_captions(part)
      captions: list[dict[str, list[str]]] = [{} for _ in image_ids]
      for row, (number, language, text) in enumerate(zip(
          written.picture_C.tolist(), written.languages, written.texts,
          strict=True)):
        text = first_of.setdefault((language, *written.form(row)), text)
        texts = captions[number].setdefault(language, [])
        if text not in texts:
          texts.append(text)
      found += [{
          'image_id': image_id, 'picture': str(copies.small(
              folder, image_id) or ''),
          'original': str(copies.original(folder, image_id) or ''),
          'captions': texts} for image_id, texts in zip(
              image_ids, captions, strict=True)]
    return [one | facts for one, facts in zip(
        found, self._facts, strict=True)]


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

  def regions(self, weights: weights_lib.Weights, index: index_lib.Index,
              numbers: Sequence[int]) -> batch_lib.Regions:
    """Returns the regions of some pictures of the index.

    Raises:
      UserError: there are none, they were not made for these weights, or they
        were prepared again since the index was read.
    """
    found_ids, regions = self._records(weights).regions(np.asarray(numbers))
    if found_ids != list(map(index.image_id, numbers)):
      raise errors.UserError(
          f'{self.dataset} in {self.data_dir} has other pictures than the '
          'index: export it again')
    return regions

  def _records(self, weights: weights_lib.Weights) -> Records:
    data_dir = self._checked(weights)
    if weights_lib.fingerprint_of_data(
        data_dir, self.dataset) != self._data_key:
      raise errors.UserError(
          f'{data_dir / self.dataset} was prepared again since its index was '
          'read: start again')
    return _open_once(data_dir, self.dataset, self.split, self._data_key)

  @property
  def manifest(self) -> paths.Path | None:
    """The file that is written anew with the index; None = it is not kept."""
    return self.cache_dir and (
        self.cache_dir / f'{self.dataset}_{self.split}' / index_lib.MANIFEST)

  def index(self, weights: weights_lib.Weights,
            embed: Embed) -> index_lib.Index:
    """Returns pictures and vectors, stored or made by `embed`.

    What these weights have made of the same pictures before is not made again.

    Raises:
      UserError: there are none, or they were not made for these weights.
    """
    data_dir = self._checked(weights)
    folder = self.manifest and self.manifest.parent
    manifest, _ = startup.read_manifest(data_dir, self.dataset)
    key = {
        # What a picture's vector depends on, beside the picture.
        'made_by': fingerprint.of([
            self._vectors_key(weights), items.recipe(manifest.get('options')),
            manifest.get('feature_extractor')]),
        # The small copies are stored by their paths.
        'made_of': fingerprint.of([
            str(data_dir.absolute()), self._data_key, index_lib.FIELDS])}
    old, old_key = _read_stored(folder)
    if not any(sharding.of_all(old_key != key)):
      return old
    # Processes embed together: all take the same from before, or nothing.
    if not all(sharding.of_all(old_key.get('made_by') == key['made_by'])):
      old = None
    try:
      records = self._records(weights)
    except errors.UserError as error:
      # Words are searched by the vectors alone. Of several processes none goes
      # on by itself: the others would wait for it.
      if old is None or jax.process_count() > 1:
        raise
      logging.warning('%s; what was indexed before is searched', error)
      return old
    title = f'index of {self.dataset}' if sharding.is_first() else ''
    with _place(folder) as place, console.bar(
        title, None, unit='pictures') as bar:
      place.mkdir()
      pictures = _make(place, records, old, embed,
                       weights.config.embedding_dim, bar)
      index_lib.finish(place, pictures, key)
      made = index_lib.load(place)
    sharding.wait_for_all('the index')
    return made

  def caption_vectors(self, language: str, texts: list[str],
                      weights: weights_lib.Weights,
                      embed: EmbedTexts) -> np.ndarray:
    """Returns float32 [C, E] of captions, stored or made by `embed`."""
    if not self.cache_dir:
      return embed(texts)
    path = self.cache_dir / f'{self.dataset}_{self.split}_{language}.npz'
    key = fingerprint.of(self._vectors_key(weights))
    names_C = np.array([fingerprint.of(text) for text in texts])
    old_names, old_vectors = _read_vectors(path, key)
    known = {name: row for row, name in enumerate(old_names.tolist())
             } if all(sharding.of_all(len(old_names) > 0)) else {}
    rows_C = np.array([known.get(name, -1) for name in names_C.tolist()])
    new = np.flatnonzero(rows_C < 0)
    if not len(new) and len(old_names) == len(texts):
      return old_vectors[rows_C]
    vectors_CE = np.zeros(
        (len(texts), weights.config.embedding_dim), np.float32)
    if known:
      vectors_CE[rows_C >= 0] = old_vectors[rows_C[rows_C >= 0]]
    if len(new):
      vectors_CE[new] = embed([texts[number] for number in new])
    if sharding.is_first():
      _write_vectors(path, key, names_C, vectors_CE)
    sharding.wait_for_all('the index')
    return vectors_CE

  def _vectors_key(self, weights: weights_lib.Weights) -> list[Any]:
    """Returns what vectors are made by: weights in a number format."""
    return [weights_lib.fingerprint_of(weights.path),
            dataclasses.asdict(weights.config),
            model_config.number_format(weights.dtype), m3p_jax.__version__]

  def _checked(self, weights: weights_lib.Weights) -> paths.Path:
    """Returns the folder of prepared datasets."""
    if not (self.dataset and self.data_dir):
      raise errors.UserError(
          'there is no collection to search: give `data_dir` and `dataset`')
    weights_lib.check_data(weights, self.data_dir, self.dataset)
    return paths.of(self.data_dir)


# Two are enough for a searcher that changes its collection.
@functools.lru_cache(maxsize=2)
def _open_once(data_dir: paths.Path, dataset: str, split: str,
               key: str) -> Records:
  del key  # Prepared again, it is opened again.
  return Records(data_dir, dataset, split)


@contextlib.contextmanager
def _place(folder: paths.Path | None) -> Iterator[paths.Path]:
  """Gives a folder to make an index in, which is kept where it can be."""
  if folder and sharding.is_first():
    try:
      output.check_writable(folder.parent, 'the index')
    except errors.UserError as error:
      # Told before vectors are made: they will be made again next time.
      logging.warning('%s; every start computes the vectors anew', error)
    else:
      with output.draft(folder, overwrite=True) as draft:
        yield draft
      return
  # What is mapped of it stays when it is deleted.
  with tempfile.TemporaryDirectory() as temporary:
    yield paths.of(temporary) / 'index'


def _make(place: paths.Path, records: Records, old: index_lib.Index | None,
          embed: Embed, dim: int, bar: Any) -> list[dict[str, Any]]:
  """Writes an index's vectors and returns its pictures.

  What the old one has of a picture's content is taken from there.
  """
  pictures = records.pictures()
  known = {one['content']: number for number, one in enumerate(
      old.pictures if old else ()) if one['content']}
  rows = [known.get(one['content'], -1) for one in pictures]
  is_new_I = np.array(rows) < 0
  vectors_IE = np.lib.format.open_memmap(
      place / index_lib.VECTORS, 'w+', np.float32, (len(pictures), dim))
  if old:
    vectors_IE[~is_new_I] = old.vectors_IE[np.array(rows)[~is_new_I]]
  new = np.flatnonzero(is_new_I)
  bar.reset(len(new))
  for part in np.split(new, range(_AT_ONCE, len(new), _AT_ONCE)):
    if len(part):
      vectors_IE[part] = embed(records.regions(part)[1])
      bar.update(len(part))
  vectors_IE.flush()
  return pictures


def _read_stored(folder: paths.Path | None,
                 ) -> tuple[index_lib.Index | None, dict[str, Any]]:
  """Returns a stored index and its key; None and none where it is damaged."""
  if not folder or not (folder / index_lib.MANIFEST).exists():
    return None, {}
  try:
    manifest = index_lib.read_manifest(folder)
    return index_lib.load(folder), {
        name: manifest.get(name) for name in ('made_by', 'made_of')}
  except errors.UserError as error:
    logging.warning('%s; it is made again', error)
    return None, {}


def _read_vectors(path: paths.Path,
                  key: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns what a file of this key has of captions: digests and vectors."""
  try:
    if path.exists():
      with paths.load(path) as stored:
        if str(stored['key']) == key:
          return stored['names_C'], stored['vectors_CE']
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    logging.warning('%s cannot be read, made again: %s', path, error)
  return np.zeros(0, np.str_), np.zeros((0, 0), np.float32)


def _write_vectors(path: paths.Path, key: str, names_C: np.ndarray,
                   vectors_CE: np.ndarray) -> None:
  """Stores captions' vectors under a key, whole or not at all."""
  content = io.BytesIO()
  np.savez(content, allow_pickle=False, key=np.array(key), names_C=names_C,
           vectors_CE=vectors_CE)
  try:
    with results.draft(path) as draft:
      draft.write_bytes(content.getvalue())
  except OSError as error:
    # A workdir that cannot be written to can still be searched.
    logging.warning('%s: not stored: %s', path, error)
