"""Vectors and match logits of many pictures and captions, in fixed shapes.

Letters: I pictures, C captions, P pairs, L text length, R regions, B rows of
one forward pass, N layers, H heads, E shared space of the dual encoder.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import tqdm

from input_pipeline import console
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.generation import decoding
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.model import transformer
from m3p_jax.objectives import classification

# Captions are cut to these lengths, so that short ones cost little; pictures
# to a multiple of so many regions.
LENGTHS = (8, 12, 16, 24, 32, 64, 128, 256, 512)
REGIONS_MULTIPLE = 16
# Another length means another compilation: worth it for so many batches.
MIN_BATCHES = 4


class Texts(NamedTuple):
  """C captions: padded ids, False at padding, and rows of the language table.
  """
  token_ids_CL: np.ndarray
  text_mask_CL: np.ndarray
  language_C: np.ndarray | None  # None = not known, or not asked for.


class Engine:
  """One model's parameters on all local devices, rows split over them.

  Of several processes all embed the same rows, each its share.
  """

  def __init__(self, params: Any, config: model_config_lib.ModelConfig, *,
               batch_size: int = 256, dtype: str = 'auto'):
    """Puts the parameters, boxed or not, on every device of this host.

    A forward pass has `batch_size` rows or pairs at most; the dtype is that of
    activations, 'auto' = what the devices are fast at.
    """
    self.config = config
    self.batch_size = batch_size
    mesh = Mesh(np.array(jax.local_devices()), ('data',))
    # Arrays split over the devices by their rows, and arrays on each whole.
    self._rows = NamedSharding(mesh, P('data'))
    self._whole = NamedSharding(mesh, P())
    self._num_devices = mesh.size
    self.params = jax.device_put(nn.unbox(params), self._whole)
    self._functions = functions(config, model_config_lib.Options(
        dtype=model_config_lib.number_format(dtype)))

  def logit_scale(self) -> float:
    """Returns the learned factor on cosines."""
    return float(self._functions.logit_scale(self.params))

  def embed_images(self, regions: batch_lib.Regions, *,
                   title: str = '') -> np.ndarray:
    """Returns unit vectors [I, E], float32; a title shows a progress bar."""
    function = functools.partial(self._functions.embed_images, self.params)
    count = len(regions.mask_BR)
    mine = sharding.my_share(count)
    vectors_IE = np.zeros((count, self.config.embedding_dim), np.float32)
    with _bar(title, len(mine), 'pictures') as bar:
      self._run(function, regions, mine, vectors_IE, bar)
    return sharding.gather_shares(vectors_IE[mine], count)

  def embed_texts(self, texts: Texts, *, title: str = '') -> np.ndarray:
    """Returns unit vectors [C, E], float32; a title shows a progress bar."""
    function = functools.partial(self._functions.embed_texts, self.params)
    count = len(texts.token_ids_CL)
    mine = sharding.my_share(count)
    vectors_CE = np.zeros((count, self.config.embedding_dim), np.float32)
    with _bar(title, len(mine), 'captions') as bar:
      for length, index in self._by_length(texts, mine):
        rows = Texts(texts.token_ids_CL[:, :length],
                     texts.text_mask_CL[:, :length], texts.language_C)
        self._run(function, rows, mine[index], vectors_CE, bar)
    return sharding.gather_shares(vectors_CE[mine], count)

  def match(self, regions: batch_lib.Regions, texts: Texts,
            image_P: np.ndarray, text_P: np.ndarray, *, title: str = '',
            is_shared: bool = False) -> np.ndarray:
    """Returns the joint encoder's match logits [P] of pairs, float32.

    Pair p is picture `image_P[p]` of `regions` and caption `text_P[p]`.
    Processes that all ask for the same pairs can share them out.
    """
    # Pictures are sent once, not once a pair; padding that none of them needs
    # stays here.
    used = np.flatnonzero(np.asarray(regions.mask_BR)[image_P].any(0))
    width = -(-(used.max(initial=0) + 1) // REGIONS_MULTIPLE) * REGIONS_MULTIPLE
    start = self.config.text_start(regions.mask_BR.shape[1])
    regions = jax.device_put(batch_lib.Regions(
        regions.image_id_B, *(x[:, :width] for x in regions[1:])), self._whole)
    function = functools.partial(
        self._functions.match, self.params, regions, start)
    count = len(image_P)
    mine = sharding.my_share(count) if is_shared else np.arange(count)
    logits_P = np.zeros(count, np.float32)
    with _bar(title, len(mine), 'pairs') as bar:
      for length, index in self._by_length(texts, text_P[mine]):
        rows = _Pairs(image_P, text_P, texts.token_ids_CL[:, :length],
                      texts.text_mask_CL[:, :length])
        self._run(function, rows, mine[index], logits_P, bar)
    return sharding.gather_shares(
        logits_P[mine], count) if is_shared else logits_P

  def write(self, regions: batch_lib.Regions | None,
            settings: decoding.Settings, *, language: int | None = None,
            source: Mapping[str, Any] | None = None, seed: int = 0,
            title: str = '') -> decoding.Written:
    """Returns what the decoder writes of pictures, [I, K, L] and [I, K].

    Args:
      regions: of I pictures; None = only `source` is read.
      settings: how; what is drawn for a picture depends on its number alone.
      language: row of the language table; None = there is none.
      source: I texts to translate, as in `decoding.Rows.extra`.
      seed: of what is drawn.
      title: of a progress bar; '' = none.
    """
    count = len(source['source_ids_BL'] if source else regions.mask_BR)
    beams = settings.num_beams
    mine = sharding.my_share(count)
    rows = decoding.Rows(
        regions, None if language is None else np.full(
            count, language, np.int32),
        np.random.default_rng(seed).integers(
            2 ** 32, size=count, dtype=np.uint32), source or {})
    written = decoding.Written(
        np.zeros((count, beams, settings.max_length), np.int32),
        np.zeros((count, beams), np.float32))
    with _bar(title, len(mine), 'captions') as bar:
      self._run(lambda batch: self._functions.write(
          self.params, batch, settings), rows, mine, written, bar)
    return jax.tree.map(
        lambda x: sharding.gather_shares(x[mine], count), written)

  def classify(self, batch: batch_lib.Batch, head: str) -> np.ndarray:
    """Returns int32 [B], the likeliest class of each row, by a task's head."""
    found_B = np.zeros(len(batch.token_ids_BL), np.int32)
    with _bar('', len(found_B), 'texts') as bar:
      self._run(lambda rows: self._functions.classify(self.params, rows, head),
                batch, np.arange(len(found_B)), found_B, bar)
    return found_B

  def attention(self, regions: batch_lib.Regions,
                texts: Texts) -> np.ndarray:
    """Returns float32 [B, L, R]: how much text looks at its picture's regions.

    The mean over layers and heads. Text looks at text as well, so the weights
    of a position sum over R to less than 1.
    """
    # The joint pass has no language.
    batch = batch_lib.Batch(*texts[:2], None, regions)
    return np.asarray(self._functions.attention(
        self.params, jax.device_put(batch, self._whole)))

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

  def _run(self, function: Callable[..., Any], rows: Any, index: np.ndarray,
           out: Any, bar: tqdm.tqdm) -> None:
    """Writes function(rows) of the rows in `index` into `out`, a tree alike.
    """
    size = min(self.batch_size, 1 << max(len(index) - 1, 0).bit_length())
    size = -(-size // self._num_devices) * self._num_devices
    running = None
    for start in range(0, len(index), size):
      chosen = index[start:start + size]
      padded = np.pad(chosen, (0, size - len(chosen)), mode='edge')
      batch = jax.device_put(_take(rows, padded), self._rows)
      result = sharding.settle(function(batch))
      # The device works on this batch while the one before is fetched.
      if running:
        _fetch(*running, out, bar)
      running = (result, chosen)
    if running:
      _fetch(*running, out, bar)


def _bar(title: str, total: int, unit: str) -> tqdm.tqdm:
  return console.bar(title if sharding.is_first() else '', total, unit=unit)


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


def _fetch(result: Any, chosen: np.ndarray, out: Any, bar: tqdm.tqdm) -> None:
  for new, place in zip(
      jax.tree.leaves(result), jax.tree.leaves(out), strict=True):
    place[chosen] = np.asarray(new)[:len(chosen)]
  bar.update(len(chosen))


class _Functions(NamedTuple):
  """The jitted functions of one geometry; (params, …) → array, or a tree."""
  embed_images: Callable[..., jax.Array]
  embed_texts: Callable[..., jax.Array]
  match: Callable[..., jax.Array]
  attention: Callable[..., jax.Array]
  logit_scale: Callable[..., jax.Array]
  write: Callable[..., decoding.Written]
  classify: Callable[..., jax.Array]


# Compiled once for all engines of a geometry.
@functools.lru_cache(maxsize=4)
def functions(config: model_config_lib.ModelConfig,
              options: model_config_lib.Options) -> _Functions:
  """Returns what an engine of this geometry runs."""
  module = m3p.M3P(config, options)

  def match(model, regions, text_position, pairs):
    image_B, token_ids_BL, text_mask_BL = pairs
    return model.match_rows(batch_lib.Batch(
        token_ids_BL, text_mask_BL, None,
        jax.tree.map(lambda x: x[image_B], regions)),
                            text_position=text_position)

  def attention(params, batch):
    _, sown = nn.apply(
        lambda model: model.encode(batch), module,
        mutable=[transformer.ATTENTION])({'params': params})
    encoder = sown[transformer.ATTENTION]['encoder']
    (layers_NBHTT,) = encoder['layers']['attention']['weights']
    (last_BHTT,) = encoder['last']['attention']['weights']
    weights_NBHTT = jnp.concatenate([layers_NBHTT, last_BHTT[None]])
    start = batch.num_regions
    return weights_NBHTT[..., start:, :start].mean((0, 2))

  def jit(function):
    return jax.jit(lambda params, *args: nn.apply(
        lambda model: function(model, *args), module)({'params': params}))

  return _Functions(
      jit(lambda model, regions: model.embed_images(regions)),
      jit(lambda model, texts: model.embed_texts(*texts)), jit(match),
      jax.jit(attention), jit(lambda model: model.logit_scale()),
      jax.jit(functools.partial(decoding.write, module), static_argnums=2),
      jax.jit(lambda params, batch, head: nn.apply(
          lambda model: classification.logits(model, batch, head).argmax(1),
          module)({'params': params}), static_argnums=2))
