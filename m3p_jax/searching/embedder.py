"""A model in use: it embeds, scores and explains pictures and texts.

Letters: I pictures, C texts, E shared space, L text length, R regions, P
pairs, W words.
"""

from collections.abc import Sequence
import functools
import os
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.searching import rankings
from m3p_jax.searching import reading


class Explanation(NamedTuple):
  """Where the joint encoder looks while it reads a text beside a picture.

  Attributes:
    words: of the text; of writing without spaces, its pieces.
    weights_WR: float32, each word's attention to the picture's regions, mean
      over its pieces, layers and heads; a row sums to 1.
    boxes_R4: float32, the regions' x1, y1, x2, y2 as parts of the picture's
      sides.
    match: probability that text and picture match.
  """
  words: list[str]
  weights_WR: np.ndarray
  boxes_R4: np.ndarray
  match: float


class Embedder:
  """Weights on the device, and the readers of what they were trained on."""

  def __init__(self, weights: weights_lib.Weights, *, batch_size: int = 256):
    """Args: the model, and rows in one forward pass."""
    self.weights = weights
    self._engine = engine_lib.Engine(
        weights.params, weights.config, batch_size=batch_size,
        dtype=weights.dtype)
    self._reader = reading.Reader(weights)

  def score(self, images: Sequence[Any], texts: Sequence[str], *,
            mode: str = 'dual') -> np.ndarray:
    """Returns float32 [I, C]: how well each text fits each picture.

    Args:
      images: paths, Pillow images, uint8 arrays [height, width, 3], image ids
        of the collection, or what `read` made of one of them.
      texts: in any language.
      mode: 'dual' (cosines, fast) or 'joint' (match logits: both go through
        the Transformer together).

    Raises:
      UserError: unusable picture, empty text, or unknown mode.
    """
    errors.check_choice('mode', mode, ('dual', 'joint'))
    if mode == 'dual':
      return np.einsum(
          'IE,CE->IC', self.embed_images(images), self.embed_texts(texts))
    _check_several('images', images)
    _check_several('texts', texts)
    if not len(images) or not len(texts):
      return np.zeros((len(images), len(texts)), np.float32)
    regions = self._regions(images)
    tokens = self._tokens_beside(texts, regions)
    image_P, text_P = np.divmod(
        np.arange(len(images) * len(texts)), len(texts))
    logits_P = self._engine.match(regions, tokens, image_P, text_P)
    return logits_P.reshape(len(images), len(texts))

  def embed_images(self, images: Sequence[Any]) -> np.ndarray:
    """Returns unit vectors [I, E], float32; `images` as in `score`."""
    _check_several('images', images)
    if not len(images):
      return np.zeros((0, self.weights.config.embedding_dim), np.float32)
    return self._engine.embed_images(self._regions(images))

  def embed_texts(self, texts: Sequence[str], *,
                  language: str | None = None) -> np.ndarray:
    """Returns unit vectors [C, E], float32.

    Args:
      texts: in any language.
      language: of them; only models with language embeddings use it.
    """
    _check_several('texts', texts)
    return self._engine.embed_texts(
        self._reader.tokenise(texts, language=language))

  def read(self, image: Any) -> batch_lib.Regions:
    """Returns a picture's regions, to be used in place of it several times.

    Raises:
      UserError: unusable picture.
    """
    return self._regions([image])

  def explain(self, image: Any, text: str) -> Explanation:
    """Returns where the joint encoder looks while it reads the text.

    Args:
      image: see `score`.
      text: in any language; what the model has no positions for is cut off.

    Raises:
      UserError: unusable picture or empty text.
    """
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

  def _tokens_beside(self, texts: Sequence[str],
                     regions: batch_lib.Regions) -> engine_lib.Texts:
    return self._reader.tokenise(
        texts, num_regions=regions.mask_BR.shape[1])

  def _regions(self, images: Sequence[Any]) -> batch_lib.Regions:
    """Returns the regions of pictures in all the forms that `score` takes."""
    is_file = [
        os.path.exists(image) and not os.path.isdir(image)
        if isinstance(image, str)
        else not isinstance(image, batch_lib.Regions) for image in images]
    # Files are read together: the network takes many at a time.
    files = [image for image, one in zip(images, is_file, strict=True) if one]
    read = self._reader.regions(files) if files else None
    rows = iter(range(len(files)))
    return reading.concatenate([
        reading.row(read, next(rows)) if one
        else self._regions_of(image) if isinstance(image, str) else image
        for image, one in zip(images, is_file, strict=True)])

  def _regions_of(self, image_id: str) -> batch_lib.Regions:
    """Returns the regions of a picture of the collection; here there is none.

    Raises:
      UserError: there is no such picture.
    """
    raise errors.UserError(f'{image_id}: there is no such file')


def _check_several(name: str, values: Sequence[Any]) -> None:
  """Raises UserError for a text, whose letters would be taken for texts."""
  if isinstance(values, str | os.PathLike):
    raise errors.UserError(f'{name} is {values!r}; allowed: a list of them')
