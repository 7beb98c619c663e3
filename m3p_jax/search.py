"""Search pictures by text in any language, and text by picture.

  searcher = search.load('runs/quickstart')
  searcher.search('ein roter Apfel', k=10)      # pictures of the collection
  searcher.describe('my_cat.jpg', languages=('en', 'de'), k=5)
  searcher.score(['my_cat.jpg'], ['a cat', 'a dog'])

Letters: I pictures, C captions, L text length, E shared space.
"""

from collections.abc import Collection, Sequence
import functools
import os
import pathlib
import textwrap
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from configs import base
from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import collection as collection_lib
from m3p_jax import config_check
from m3p_jax import reading
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import weights as weights_lib


class Result(NamedTuple):
  """A picture found.

  Attributes:
    image_id: its name in the collection.
    score: cosine of query and picture, −1 to 1.
    path: of a small copy of it; '' where there is none.
    caption: its first English caption; '' where there is none.
  """
  image_id: str
  score: float
  path: str
  caption: str


class Description(NamedTuple):
  """A caption of the collection that fits a picture, and its cosine."""
  text: str
  score: float


class Searcher:
  """A model, and a collection that is loaded when it is first needed."""

  def __init__(self, weights: weights_lib.Weights,
               source: collection_lib.Source, *, batch_size: int = 256):
    """Args: the model, the collection, and rows in one forward pass."""
    self.weights = weights
    self._engine = engines.Engine(
        weights.params, weights.config, batch_size=batch_size)
    self._reader = reading.Reader(weights)
    self._source = source
    self._caption_vectors: dict[str, np.ndarray] = {}

  def search(self, query: str, k: int = 10, *,
             language: str | None = None) -> list[Result]:
    """Returns the k pictures of the collection nearest to the query.

    Args:
      query: text in any language and of any length; what the model has no
        positions for is cut off.
      k: pictures wanted; a smaller collection returns all it has.
      language: of the query; only models with language embeddings use it.

    Raises:
      UserError: an empty query, k below 1, or no collection.
    """
    _check_k(k)
    index = self.index
    query_1E = self.embed_texts([query], language=language)
    scores_I = np.einsum('IE,QE->QI', index.vectors_IE, query_1E)[0]
    best = np.argsort(-scores_I, kind='stable')[:k]
    return [Result(index.image_ids[i], float(scores_I[i]), index.paths[i],
                   index.captions[i]) for i in best]

  def describe(self, image: Any, languages: Sequence[str] = ('en',),
               k: int = 5) -> dict[str, list[Description]]:
    """Returns the collection's captions nearest to a picture, by language.

    Args:
      image: see `score`.
      languages: of the captions.
      k: captions wanted in each language.

    Raises:
      UserError: unusable picture, language without captions, k below 1.
    """
    _check_k(k)
    image_1E = self.embed_images([image])
    found = {}
    for language in languages:
      texts, vectors_CE = self._captions(language)
      scores_C = np.einsum('CE,IE->IC', vectors_CE, image_1E)[0]
      best = np.argsort(-scores_C, kind='stable')[:k]
      found[language] = [
          Description(texts[i], float(scores_C[i])) for i in best]
    return found

  def score(self, images: Sequence[Any], texts: Sequence[str], *,
            mode: str = 'dual') -> np.ndarray:
    """Returns float32 [I, C]: how well each text fits each picture.

    Args:
      images: paths, Pillow images, uint8 arrays [height, width, 3], or image
        ids of the collection.
      texts: in any language.
      mode: 'dual' (cosines, fast) or 'joint' (match logits: both go through
        the Transformer together).

    Raises:
      UserError: unusable picture, empty text, or unknown mode.
    """
    if mode == 'dual':
      return np.einsum(
          'IE,CE->IC', self.embed_images(images), self.embed_texts(texts))
    if mode != 'joint':
      raise errors.UserError(f'mode is {mode!r}; allowed: dual, joint')
    regions = self._regions(images)
    tokens = self._reader.tokenise(
        texts, num_regions=regions.mask_BR.shape[1])
    image_P, text_P = np.divmod(
        np.arange(len(images) * len(texts)), len(texts))
    logits_P = self._engine.match(regions, tokens, image_P, text_P)
    return logits_P.reshape(len(images), len(texts))

  def embed_images(self, images: Sequence[Any]) -> np.ndarray:
    """Returns unit vectors [I, E], float32; `images` as in `score`."""
    return self._engine.embed_images(self._regions(images))

  def embed_texts(self, texts: Sequence[str], *,
                  language: str | None = None) -> np.ndarray:
    """Returns unit vectors [C, E], float32; see `search` for `language`."""
    return self._engine.embed_texts(
        self._reader.tokenise(texts, language=language))

  @functools.cached_property
  def index(self) -> collection_lib.Index:
    """The collection's vectors, from the workdir if they were stored."""
    title = f'index of {self._source.dataset}'
    return self._source.index(
        self.weights,
        lambda regions: self._engine.embed_images(regions, title=title))

  def _regions(self, images: Sequence[Any]) -> batch_lib.Regions:
    """Returns the regions of files, arrays, and pictures of the collection."""
    is_file = [not isinstance(image, str) or os.path.exists(image)
               for image in images]
    # Files are read together: the network takes many at a time.
    files = [image for image, one in zip(images, is_file, strict=True) if one]
    read = self._reader.regions(files) if files else None
    rows = iter(range(len(files)))
    return reading.concatenate([
        reading.row(read, next(rows)) if one
        else self._source.regions_of(image, self.weights)
        for image, one in zip(images, is_file, strict=True)])

  def _captions(self, language: str) -> tuple[list[str], np.ndarray]:
    """Returns the collection's captions and their vectors, made once."""
    texts = self._source.texts(language, self.weights)
    if language not in self._caption_vectors:
      self._caption_vectors[language] = self._engine.embed_texts(
          self._reader.tokenise(texts, language=language),
          title=f'captions ({language})')
    return texts, self._caption_vectors[language]


def load(path: str | pathlib.Path, *,
         config: ml_collections.ConfigDict | None = None,
         data_dir: str | pathlib.Path = '', dataset: str = '',
         split: str = collection_lib.ALL,
         given: Collection[str] | None = None) -> Searcher:
  """Returns a searcher of a run's weights and its evaluation dataset.

  Args:
    path: a workdir, a checkpoint, or a `checkpoints/` folder. Vectors of the
      collection are kept in the workdir, under `search/`.
    config: overrides the workdir's config.json.
    data_dir: of prepared datasets; empty = the config's.
    dataset: the collection; empty = the config's.
    split: of the collection; 'all' = every split.
    given: dotted keys of the command line, see `weights.source`.

  Raises:
    UserError: no checkpoint here.
  """
  path = pathlib.Path(path)
  saved = path / 'config.json'
  is_run = config is not None or (
      saved.exists() and (path / 'checkpoints').is_dir())
  source: str | pathlib.Path = path
  if config is not None:
    source = weights_lib.source(config, path, given=given)
  elif is_run:
    config = config_check.get_config(str(saved))
  else:
    config = base.get_config()
    config.evaluation.dataset = config.data.data_dir = ''
  weights = weights_lib.load(
      source, model=config.model.to_dict() if is_run else None,
      given=given or ())
  return Searcher(
      weights, collection_lib.Source(
          str(data_dir or config.evaluation.data_dir or config.data.data_dir),
          dataset or config.evaluation.dataset, split,
          path / 'search' if is_run else None),
      batch_size=config.evaluation.batch_size)


def main_search(workdir: str | pathlib.Path, query: str, k: int = 10, *,
                config: ml_collections.ConfigDict | None = None,
                given: Collection[str] | None = None) -> None:
  """Prints the k pictures nearest to the query, best first.

  Args:
    workdir: of the run.
    query: in any language.
    k: pictures wanted.
    config: of the run; None = the workdir's.
    given: dotted keys that the command line set.

  Raises:
    UserError: see `load` and `Searcher.search`.
  """
  split = collection_lib.ALL
  if config is not None and 'evaluation.split' in (given or ()):
    split = config.evaluation.split
  searcher = load(workdir, config=config, split=split, given=given)
  results = searcher.search(query, k)
  print(f'{len(searcher.index.image_ids):,} pictures, nearest to {query!r}:\n')
  for rank, result in enumerate(results, 1):
    caption = textwrap.shorten(result.caption, 44, placeholder='…')
    path = result.path.removeprefix(f'{os.getcwd()}/')
    print(f'{rank:3}  {result.score:6.3f}  {caption:44}  '
          f'{path or result.image_id}')


def _check_k(k: int) -> None:
  if k < 1:
    raise errors.UserError(f'k is {k}; allowed: 1 and more')
