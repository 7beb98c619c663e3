"""Vectors and match logits of many pictures and captions, in fixed shapes.

Letters: I pictures, C captions, P pairs, L text length, B rows of one forward
pass, E shared space of the dual encoder.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import tqdm

from input_pipeline import bars
from m3p_jax import allocator
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.evaluation import forward
from m3p_jax.model import attention as attention_lib
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import joint_pass
from m3p_jax.model import m3p
from m3p_jax.model import prepared

# Captions are cut to these lengths, so that short ones cost little.
LENGTHS = (8, 12, 16, 24, 32, 64, 128, 256, 512)
# Another length means another compilation: worth it for so many batches.
MIN_BATCHES = 4


class Texts(NamedTuple):
  """C captions.

  Attributes:
    token_ids_CL: int32, padded.
    text_mask_CL: bool, False at padding.
    language_C: int32, index in the checkpoint's languages; None = unknown.
  """
  token_ids_CL: np.ndarray
  text_mask_CL: np.ndarray
  language_C: np.ndarray | None


class Engine:
  """One model's parameters on all local devices, rows split over them."""

  def __init__(self, params: Any, config: model_config_lib.ModelConfig, *,
               batch_size: int = 256):
    """Puts the parameters on every device of this host.

    Args:
      params: of M3P, boxed or not.
      config: geometry.
      batch_size: most rows or pairs in one forward pass.
    """
    self.config = config
    self.batch_size = batch_size
    if config.resolved_platform == 'cpu':
      allocator.keep_freed_memory()
    mesh = Mesh(np.array(jax.local_devices()), ('data',))
    # Arrays split over the devices by their rows, and arrays on each whole.
    self.rows = NamedSharding(mesh, P('data'))
    self.whole = NamedSharding(mesh, P())
    self.num_devices = mesh.size
    self.params = jax.device_put(nn.unbox(params), self.whole)

  @functools.cached_property
  def joint_params(self) -> Any:
    """Parameters as the joint pass reads them; made when first asked for."""
    return prepared.prepare(self.config, self.params)

  def logit_scale(self) -> float:
    """Returns the learned factor on cosines."""
    return float(_functions(self.config).logit_scale(self.params))

  def embed_images(self, regions: batch_lib.Regions, *,
                   title: str = '') -> np.ndarray:
    """Returns unit vectors [I, E], float32.

    Args:
      regions: of I pictures.
      title: of the progress bar; empty = none.
    """
    function = functools.partial(
        _functions(self.config).embed_images, self.params)
    count = len(regions.mask_BR)
    vectors_IE = np.zeros((count, self.config.embedding_dim), np.float32)
    with bars.bar(title, count, unit='pictures') as bar:
      self._run(function, regions, np.arange(count), vectors_IE, bar)
    return vectors_IE

  def embed_texts(self, texts: Texts, *, title: str = '') -> np.ndarray:
    """Returns unit vectors [C, E], float32.

    Args:
      texts: C captions.
      title: of the progress bar; empty = none.
    """
    function = functools.partial(
        _functions(self.config).embed_texts, self.params)
    count = len(texts.token_ids_CL)
    vectors_CE = np.zeros((count, self.config.embedding_dim), np.float32)
    with bars.bar(title, count, unit='captions') as bar:
      for length, index in self._by_length(texts, np.arange(count)):
        rows = Texts(texts.token_ids_CL[:, :length],
                     texts.text_mask_CL[:, :length], texts.language_C)
        self._run(function, rows, index, vectors_CE, bar)
    return vectors_CE

  def match(self, regions: batch_lib.Regions, texts: Texts,
            image_P: np.ndarray, text_P: np.ndarray, *,
            title: str = '') -> np.ndarray:
    """Returns the joint encoder's match logits [P], float32.

    Args:
      regions: of I pictures.
      texts: C captions.
      image_P: int, the pictures of the pairs.
      text_P: int, their captions.
      title: of the progress bar; empty = none.
    """
    function = functools.partial(
        _functions(self.config).match, self.joint_params)
    # Pictures are sent once, not once a pair.
    regions = jax.device_put(regions, self.whole)
    logits_P = np.zeros(len(image_P), np.float32)
    with bars.bar(title, len(image_P), unit='pairs') as bar:
      for length, index in self._by_length(texts, text_P):
        rows = _Pairs(image_P, text_P, texts.token_ids_CL[:, :length],
                      texts.text_mask_CL[:, :length])
        self._run(functools.partial(function, regions=regions), rows, index,
                  logits_P, bar)
    return logits_P

  def attention(self, regions: batch_lib.Regions,
                texts: Texts) -> np.ndarray:
    """Returns float32 [B, L, R], see `attention.text_to_regions`.

    Args:
      regions: of B pictures.
      texts: B captions, one a picture.
    """
    # The joint pass has no language.
    batch = batch_lib.Batch(*texts[:2], None, regions)
    return np.asarray(_functions(self.config).attention(
        self.params, jax.device_put(batch, self.whole)))

  def _by_length(self, texts: Texts, text_P: np.ndarray
                 ) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (length, rows whose captions fit into it)."""
    longest = texts.text_mask_CL.shape[1]
    if len(texts.text_mask_CL) == 1:
      # Who brings one text has chosen its length.
      yield longest, np.arange(len(text_P))
      return
    length_P = texts.text_mask_CL.sum(1)[text_P]
    rest = np.arange(len(text_P))
    for length in (*[x for x in LENGTHS if x < longest], longest):
      fits = length_P[rest] <= length
      pays = fits.sum() >= MIN_BATCHES * self.batch_size or fits.all()
      if pays and len(rest):
        yield length, rest[fits]
        rest = rest[~fits]

  def _run(self, function: Callable[..., jax.Array], rows: Any,
           index: np.ndarray, out: np.ndarray, bar: tqdm.tqdm) -> None:
    """Writes function(rows) of the rows in `index` into `out`."""
    size = min(self.batch_size, 1 << max(len(index) - 1, 0).bit_length())
    size = -(-size // self.num_devices) * self.num_devices
    running = None
    for start in range(0, len(index), size):
      chosen = index[start:start + size]
      padded = np.pad(chosen, (0, size - len(chosen)), mode='edge')
      batch = jax.device_put(_take(rows, padded), self.rows)
      result = sharding.settle(function(batch))
      # The device works on this batch while the one before is fetched.
      if running:
        _fetch(*running, out, bar)
      running = (result, chosen)
    if running:
      _fetch(*running, out, bar)


class _Pairs(NamedTuple):
  """P pairs, and the captions they name."""
  image_P: np.ndarray
  text_P: np.ndarray
  token_ids_CL: np.ndarray
  text_mask_CL: np.ndarray


def _take(rows: Any, index: np.ndarray) -> Any:
  """Returns the chosen rows; of pairs, each with its caption."""
  if isinstance(rows, _Pairs):
    text = rows.text_P[index]
    return (rows.image_P[index], rows.token_ids_CL[text],
            rows.text_mask_CL[text])
  return jax.tree.map(lambda x: np.asarray(x)[index], rows)


def _fetch(result: jax.Array, chosen: np.ndarray, out: np.ndarray,
           bar: tqdm.tqdm) -> None:
  out[chosen] = np.asarray(result)[:len(chosen)]
  bar.update(len(chosen))


class _Functions(NamedTuple):
  """The jitted forward passes of one geometry; (params, rows) → array."""
  embed_images: Callable[..., jax.Array]
  embed_texts: Callable[..., jax.Array]
  match: Callable[..., jax.Array]
  attention: Callable[..., jax.Array]
  logit_scale: Callable[..., jax.Array]


@functools.lru_cache(maxsize=4)
def _functions(config: model_config_lib.ModelConfig) -> _Functions:
  """Returns the forward passes, compiled once for all engines."""

  def bind(function):
    return forward.jit(forward.bound(config, function))

  def embed_images(model, regions):
    return model.embed_images(regions, deterministic=True)

  def embed_texts(model, texts):
    return model.embed_texts(*texts, deterministic=True)

  def match(model, pairs, *, regions):
    image_B, token_ids_BL, text_mask_BL = pairs
    chosen = jax.tree.map(lambda x: x[image_B], regions)
    position_BR = jnp.broadcast_to(
        jnp.arange(chosen.mask_BR.shape[1]), chosen.mask_BR.shape)
    return joint_pass.match_pairs(
        model, joint_pass.picture_half(model, chosen, position_BR),
        joint_pass.text_half(model, token_ids_BL, text_mask_BL,
                             start=position_BR.shape[1]))

  attention = jax.jit(functools.partial(
      attention_lib.text_to_regions, m3p.M3P(config)))
  return _Functions(bind(embed_images), bind(embed_texts), bind(match),
                    attention, bind(lambda model: model.logit_scale()))
