"""A model over a collection: it searches, scores, describes and explains.

Letters: I pictures, C texts, Q = 1 query, E shared space, L text length, R
regions, P pairs, W words.
"""

from collections.abc import Iterator, Sequence
import copy
import dataclasses
import functools
import os
import threading
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.generation import captions
from m3p_jax.generation import decoding
from m3p_jax.search import collection as collection_lib
from m3p_jax.search import index as index_lib
from m3p_jax.search import inputs
from m3p_jax.search import rankings

_DEFAULTS = rankings.Settings()


class Result(NamedTuple):
  """A picture found."""
  image_id: str
  # What the mode orders by: the cosine of query and picture (dual), the joint
  # encoder's match logit (joint), or a sum of both (rerank).
  score: float
  # Of its file, or of its small copy where that has gone; '' without either.
  path: str
  caption: str  # Its first English one; '' where there is none.
  cosine: float
  # Probability; None where the joint encoder did not look at the picture.
  match: float | None = None
  thumbnail: str = ''  # Path of a small copy, in WebP; '' where there is none.


class Description(NamedTuple):
  """A caption that fits a picture: the collection's, scored by its cosine.

  Or one that the model wrote, by its log-probability.
  """
  text: str
  score: float


class Explanation(NamedTuple):
  """Where the joint encoder looks while it reads a text beside a picture."""
  words: list[str]  # Of writing without spaces, the pieces.
  # Each word's attention to the picture's regions, mean over its pieces, layers
  # and heads; a row sums to 1.
  weights_WR: np.ndarray
  boxes_R4: np.ndarray  # x1, y1, x2, y2 as parts of the picture's sides.
  match: float  # Probability that text and picture match.


class Searcher:
  """A model, and a collection that is loaded when it is first needed.

  A picture is a path, a Pillow image, a uint8 array [height, width, 3], the
  name of one in the collection, or what `read` made of one of them.
  """

  def __init__(self, weights: weights_lib.Weights,
               source: collection_lib.Source, *, batch_size: int = 256,
               settings: rankings.Settings = _DEFAULTS):
    """Loads nothing yet but the model; usable by several threads."""
    self.weights = weights
    self.source = source
    self.settings = settings
    self._engine = engine_lib.Engine(
        weights.params, weights.config, batch_size=batch_size,
        dtype=weights.dtype)
    self._reader = inputs.Reader(weights)
    self._index: index_lib.Index | None = None
    self._caption_vectors: dict[str, np.ndarray] = {}
    # What is computed when it is first needed is computed by one thread.
    self._lock = threading.Lock()

  def renewed(self) -> 'Searcher':
    """Returns one that reads the collection as it is now.

    Weights, and what is compiled for them, are shared.
    """
    other = copy.copy(self)
    other.source = dataclasses.replace(self.source)  # It remembers its data.
    other._index, other._caption_vectors = None, {}
    other._lock = threading.Lock()
    return other

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
    _check_k(k)
    *_, last = self.stages(query, mode=mode, language=language)
    return self.results(last, k)

  def stages(self, query: str, *, mode: str = 'dual',
             language: str | None = None) -> Iterator[rankings.Ranking]:
    """Yields rankings of all pictures, the dual encoder's first; see `search`.
    """
    errors.check_choice('mode', mode, rankings.MODES)
    if mode != 'dual':
      self._check_match(f'mode {mode!r}')
    (vector_E,) = self.embed_texts([query], language=language)
    return rankings.stages(
        self.index.cosines(vector_E), functools.partial(self._match, query),
        mode=mode, logit_scale=self.logit_scale, settings=self.settings)

  def results(self, ranking: rankings.Ranking, k: int) -> list[Result]:
    """Returns the first k pictures of a ranking."""
    return self.results_of(ranking, ranking.best(k).tolist())

  def results_of(self, ranking: rankings.Ranking,
                 numbers: Sequence[int]) -> list[Result]:
    """Returns some pictures of a ranking."""
    index = self.index
    return [Result(
        index.image_id(i), score, index.file(i) or index.thumbnail(i),
        index.caption(i), cosine, match, index.thumbnail(i))
            for i, (score, cosine, match) in zip(
                numbers, ranking.scores(numbers), strict=True)]

  def similar(self, image: Any, k: int = 10) -> list[Result]:
    """Returns the k pictures of the collection nearest to a picture.

    Raises:
      UserError: unusable picture, k below 1, or no collection.
    """
    _check_k(k)
    (vector_E,) = self.embed_images([image])
    return self.results(self.ranking_near(vector_E), k)

  def ranking_near(self, vector_E: np.ndarray) -> rankings.Ranking:
    """Returns all pictures of the collection by their cosine with a vector."""
    (ranking,) = rankings.stages(
        self.index.cosines(vector_E), np.asarray, mode='dual', logit_scale=1.0,
        settings=self.settings)
    return ranking

  def describe(self, image: Any, languages: Sequence[str] = ('en',),
               k: int = 5, *, write: bool = False,
               ) -> dict[str, list[Description]]:
    """Returns the collection's k captions nearest to a picture, by language.

    Args:
      image: the picture.
      languages: of the captions.
      k: captions of each language.
      write: captions that the model writes, by a beam of k, in their place.

    Raises:
      UserError: unusable picture, language without captions, k below 1; or
        weights that cannot write.
    """
    _check_k(k)
    if write:
      captions.check(self.weights, languages)
      regions = self._regions([image])
      return {language: [Description(*one) for one in captions.write(
          self.weights, self._engine, regions,
          decoding.Settings(num_beams=k), language)[0]]
              for language in languages}
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

    Mode 'dual' gives cosines and is fast, 'joint' match logits: both go through
    the Transformer together.

    Raises:
      UserError: unusable picture, empty text, or unknown mode.
    """
    errors.check_choice('mode', mode, ('dual', 'joint'))
    if mode == 'dual':
      return np.einsum(
          'IE,CE->IC', self.embed_images(images), self.embed_texts(texts))
    self._check_match(f'mode {mode!r}')
    _check_several('images', images)
    _check_several('texts', texts)
    if not len(images) or not len(texts):
      return np.zeros((len(images), len(texts)), np.float32)
    regions = self._regions(images)
    image_P, text_P = np.divmod(
        np.arange(len(images) * len(texts)), len(texts))
    logits_P = self._engine.match(
        regions, self._tokens_beside(texts, regions), image_P, text_P)
    return logits_P.reshape(len(images), len(texts))

  def embed_images(self, images: Sequence[Any]) -> np.ndarray:
    """Returns unit vectors [I, E], float32."""
    _check_several('images', images)
    if not len(images):
      return np.zeros((0, self.weights.config.embedding_dim), np.float32)
    return self._engine.embed_images(self._regions(images))

  def embed_texts(self, texts: Sequence[str], *,
                  language: str | None = None) -> np.ndarray:
    """Returns unit vectors [C, E], float32.

    Only models with language embeddings use the language.
    """
    _check_several('texts', texts)
    return self._engine.embed_texts(
        self._reader.tokenise(texts, language=language))

  def read(self, image: Any) -> batch_lib.Regions:
    """Returns a picture's regions, to be used in place of it several times."""
    return self._regions([image])

  def explain(self, image: Any, text: str) -> Explanation:
    """Returns where the joint encoder looks while it reads the text.

    What the model has no positions for is cut off.

    Raises:
      UserError: unusable picture or empty text, or weights without a trained
        match head.
    """
    self._check_match('explain')
    regions = self._regions([image])
    tokens = self._tokens_beside([text], regions)
    attention_LR = self._engine.attention(regions, tokens)[0]
    attention_LR = attention_LR[:, regions.mask_BR[0]]
    length = int(tokens.text_mask_CL.sum()) - 1  # Without `</s>`.
    words = [word for word in self._reader.words(text) if word.start < length]
    # The last word may be cut off inside.
    weights_WR = np.stack([
        attention_LR[word.start:min(word.end, length)].mean(0)
        for word in words])
    first = np.zeros(1, np.int32)
    logit = self._engine.match(regions, tokens, first, first)[0]
    return Explanation(
        [word.text for word in words],
        weights_WR / weights_WR.sum(-1, keepdims=True),
        regions.boxes_BRG[0, regions.mask_BR[0], :4],
        rankings.probability(logit))

  @functools.cached_property
  def logit_scale(self) -> float:
    """The learned factor on cosines."""
    return self._engine.logit_scale()

  @property
  def index(self) -> index_lib.Index:
    """The collection's vectors, from the workdir if they were stored."""
    if self._index is None:
      with self._lock:
        self._index = self._index or self.source.index(
            self.weights, self._engine.embed_images)
    return self._index

  @property
  def languages(self) -> list[str]:
    """Languages of the collection's captions, those with most first."""
    return list(self.index.captions)

  @property
  def writes(self) -> list[str]:
    """Languages in which the weights write captions."""
    known = list(self.weights.language_ids) if self.weights.can_write else []
    # One alone, where no table tells them apart.
    return known if self.weights.config.num_languages > 1 else known[:1]

  def regions_of(self, number: int) -> batch_lib.Regions:
    """Returns the regions of a picture of the collection."""
    return self.source.regions(self.weights, self.index, [number])

  def _match(self, query: str, chosen: np.ndarray) -> np.ndarray:
    """Returns the match logits of a query and some pictures of the index."""
    # As many as the last time, so that they share a compiled function.
    count = len(chosen)
    rows = np.pad(chosen, (0, -count % rankings.CHUNK), mode='edge')
    regions = self.source.regions(
        self.weights, self.index, rows.tolist())
    return self._engine.match(
        regions, self._tokens_beside([query], regions), np.arange(count),
        np.zeros(count, np.int32))

  def _check_match(self, asked: str) -> None:
    """Raises UserError where the match head was never trained."""
    if not self.weights.can_match:
      raise errors.UserError(
          f'{asked}: {self.weights.path} was trained on '
          f'{", ".join(self.weights.manifest["objectives"])}, so that its '
          "match head says nothing; allowed: mode 'dual'")

  def _tokens_beside(self, texts: Sequence[str],
                     regions: batch_lib.Regions) -> engine_lib.Texts:
    return self._reader.tokenise(
        texts, num_regions=regions.mask_BR.shape[1])

  def _regions(self, images: Sequence[Any]) -> batch_lib.Regions:
    is_file = [
        os.path.exists(image) and not os.path.isdir(image)
        if isinstance(image, str)
        else not isinstance(image, batch_lib.Regions) for image in images]
    # Files are read together: the network takes many at a time.
    files = [image for image, one in zip(images, is_file, strict=True) if one]
    read = self._reader.regions(files) if files else None
    rows = iter(range(len(files)))
    return inputs.concatenate([
        inputs.row(read, next(rows)) if one
        else self.regions_of(self._number(image))
        if isinstance(image, str) else image
        for image, one in zip(images, is_file, strict=True)])

  def _number(self, image_id: str) -> int:
    """Returns that of a picture; UserError where it is not here."""
    if not self.source.dataset:
      raise errors.UserError(f'{image_id}: there is no such file')
    if image_id not in self.index.numbers:
      raise errors.UserError(
          f'{image_id}: there is no such file, and no picture of '
          f'{self.source.dataset} with that name')
    return self.index.numbers[image_id]

  def _captions(self, language: str) -> tuple[list[str], np.ndarray]:
    """Returns the collection's captions and their vectors, made once."""

    def embed(texts):
      return self._engine.embed_texts(
          self._reader.tokenise(texts, language=language),
          title=f'captions ({language})')

    captions = self.index.captions
    if language not in captions:
      raise errors.UserError(
          f'{self.source.dataset} has no captions in {language!r}; allowed: '
          f'{", ".join(sorted(captions)) or "none, for it has no captions"}')
    texts = list(captions[language])
    if language not in self._caption_vectors:
      with self._lock:
        if language not in self._caption_vectors:
          self._caption_vectors[language] = self.source.caption_vectors(
              language, texts, self.weights, embed)
    return texts, self._caption_vectors[language]


def _check_k(k: int) -> None:
  if k < 1:
    raise errors.UserError(f'k is {k}; allowed: 1 and more')


def _check_several(name: str, values: Sequence[Any]) -> None:
  """Raises UserError for a text, whose letters would be taken for texts."""
  if isinstance(values, str | os.PathLike):
    raise errors.UserError(f'{name} is {values!r}; allowed: a list of them')
