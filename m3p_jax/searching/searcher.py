"""A model over a collection: it searches, scores, describes and explains.

Letters: I pictures, C captions, Q = 1 query, E shared space.
"""

from collections.abc import Iterator, Sequence
import functools
import threading
from typing import Any, NamedTuple

import jax
import numpy as np

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.searching import collection as collection_lib
from m3p_jax.searching import embedder
from m3p_jax.searching import index as index_lib
from m3p_jax.searching import rankings

_DEFAULTS = rankings.Settings()


class Result(NamedTuple):
  """A picture found.

  Attributes:
    image_id: its name in the collection.
    score: what the mode orders by: the cosine of query and picture (dual), the
      joint encoder's match logit (joint), or a sum of both (rerank).
    path: of its file, or of its small copy where that has gone; '' where there
      is neither.
    caption: its first English caption; '' where there is none.
    cosine: of query and picture, −1 to 1.
    match: probability that they match, by the joint encoder; None where it did
      not look at the picture.
    thumbnail: path of a small copy, in WebP; '' where there is none.
  """
  image_id: str
  score: float
  path: str
  caption: str
  cosine: float
  match: float | None = None
  thumbnail: str = ''


class Description(NamedTuple):
  """A caption of the collection that fits a picture, and its cosine."""
  text: str
  score: float


class Searcher(embedder.Embedder):
  """A model, and a collection that is loaded when it is first needed."""

  def __init__(self, weights: weights_lib.Weights,
               source: collection_lib.Source, *, batch_size: int = 256,
               settings: rankings.Settings = _DEFAULTS):
    """Loads nothing yet but the model; usable by several threads.

    Args:
      weights: of the model.
      source: of the collection.
      batch_size: rows in one forward pass.
      settings: of re-ranking.
    """
    super().__init__(weights, batch_size=batch_size)
    self.source = source
    self.settings = settings
    self._index: index_lib.Index | None = None
    self._caption_vectors: dict[str, np.ndarray] = {}
    # What is computed when it is first needed is computed by one thread.
    self._lock = threading.Lock()

  def search(self, query: str, k: int = 10, *, mode: str = 'dual',
             language: str | None = None) -> list[Result]:
    """Returns the k pictures of the collection that fit the query best.

    Args:
      query: text in any language and of any length; what the model has no
        positions for is cut off.
      k: pictures wanted; a smaller collection returns all it has.
      mode: 'dual' (cosines), 'rerank' (the joint encoder orders the first few
        again, see `settings`) or 'joint' (it orders all: slow).
      language: of the query; only models with language embeddings use it.

    Raises:
      UserError: an empty query, k below 1, unknown mode, or no collection.
    """
    check_k(k)
    *_, last = self.stages(query, mode=mode, language=language)
    return self.results(last, k)

  def stages(self, query: str, *, mode: str = 'dual',
             language: str | None = None) -> Iterator[rankings.Ranking]:
    """Yields rankings of all pictures, the dual encoder's first; see `search`.

    Raises:
      UserError: see `search`.
    """
    errors.check_choice('mode', mode, rankings.MODES)
    cosine_I = np.einsum(
        'IE,QE->QI', self.index.vectors_IE,
        self.embed_texts([query], language=language))[0]
    return rankings.stages(
        cosine_I, functools.partial(self._match, query), mode=mode,
        logit_scale=self.logit_scale, settings=self.settings)

  def results(self, ranking: rankings.Ranking, k: int) -> list[Result]:
    """Returns the first k pictures of a ranking."""
    index = self.index
    return [Result(
        index.image_ids[i], float(ranking.score_I[i]),
        index.file(i) or index.thumbnails[i], index.captions[i],
        float(ranking.cosine_I[i]), rankings.probability(ranking.match_I[i]),
        index.thumbnails[i]) for i in ranking.order_I[:k]]

  def similar(self, image: Any, k: int = 10) -> list[Result]:
    """Returns the k pictures of the collection nearest to a picture.

    Args:
      image: see `score`.
      k: pictures wanted.

    Raises:
      UserError: unusable picture, k below 1, or no collection.
    """
    check_k(k)
    cosine_I = np.einsum('IE,QE->QI', self.index.vectors_IE,
                         self.embed_images([image]))[0]
    (ranking,) = rankings.stages(
        cosine_I, np.asarray, mode='dual', logit_scale=1.0,
        settings=self.settings)
    return self.results(ranking, k)

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
    check_k(k)
    image_1E = self.embed_images([image])
    found = {}
    for language in languages:
      texts, vectors_CE = self._captions(language)
      scores_C = np.einsum('CE,IE->IC', vectors_CE, image_1E)[0]
      best = np.argsort(-scores_C, kind='stable')[:k]
      found[language] = [
          Description(texts[i], float(scores_C[i])) for i in best]
    return found

  @property
  def index(self) -> index_lib.Index:
    """The collection's vectors, from the workdir if they were stored."""
    if self._index is None:
      with self._lock:
        title = f'index of {self.source.dataset}'
        self._index = self._index or self.source.index(
            self.weights,
            lambda regions: self._engine.embed_images(regions, title=title))
    return self._index

  @property
  def languages(self) -> list[str]:
    """Languages of the collection's captions, those with most first."""
    return self.source.languages(self.weights)

  def _match(self, query: str, chosen: np.ndarray) -> np.ndarray:
    """Returns the match logits of a query and some pictures of the index."""
    collection = self.source.collection(self.weights)
    if collection.image_ids != self.index.image_ids:
      raise errors.UserError(
          f'{self.source.dataset} in {self.source.data_dir} has other pictures '
          'than the index: export it again')
    # As many as the last time, so that they share a compiled function.
    count = len(chosen)
    rows = np.pad(chosen, (0, -count % rankings.CHUNK), mode='edge')
    regions = jax.tree.map(lambda x: np.asarray(x)[rows],
                           collection.regions)
    return self._engine.match(
        regions, self._tokens_beside([query], regions), np.arange(count),
        np.zeros(count, np.int32))

  def _regions_of(self, image_id: str) -> batch_lib.Regions:
    return self.source.regions_of(image_id, self.weights)

  def _captions(self, language: str) -> tuple[list[str], np.ndarray]:
    """Returns the collection's captions and their vectors, made once."""

    def embed(texts):
      return self._engine.embed_texts(
          self._reader.tokenise(texts, language=language),
          title=f'captions ({language})')

    if language not in self._caption_vectors:
      with self._lock:
        if language not in self._caption_vectors:
          self._caption_vectors[language] = self.source.caption_vectors(
              language, self.weights, embed)
    return (list(self.source.captions(language, self.weights)),
            self._caption_vectors[language])


def check_k(k: int) -> None:
  """Raises UserError where no picture is asked for."""
  if k < 1:
    raise errors.UserError(f'k is {k}; allowed: 1 and more')
