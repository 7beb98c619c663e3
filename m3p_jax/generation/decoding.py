"""Text written token by token: greedy, by beam search, or drawn.

All three are one loop over positions. A picture has K hypotheses; what differs
is how the next tokens are chosen. Each layer keeps the keys and values of what
was written, and those of the picture, in the collection `transformer.CACHE`.
Letters: B pictures, K hypotheses of each, L text length, V padded vocabulary,
R regions, D width.
"""

import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import transformer
from m3p_jax.objectives import masking

BOS, PAD, EOS = 0, 1, 2
_LOWEST = -1e30


@dataclasses.dataclass(frozen=True)
class Settings:
  """How text is written.

  Attributes:
    num_beams: hypotheses kept of a picture, 1 = greedy; or texts drawn.
    length_penalty: α, from 0 (sums of log-probabilities, which short texts
      win) to about 1. Source: Wu et al. 2016, equation 14.
    temperature: above 0 each token is drawn, from logits divided by it.
    top_p: of the likeliest tokens that have this probability together, where
      tokens are drawn. Source: Holtzman et al. 2020.
    max_length: L, `<s>` and `</s>` included.
  """
  num_beams: int = 1
  length_penalty: float = 0.6
  temperature: float = 0.0
  top_p: float = 1.0
  max_length: int = 32


class Rows(NamedTuple):
  """B pictures to write of.

  Attributes:
    regions: theirs.
    language_B: rows of the language table; None where there is none.
    seed_B: uint32; what is drawn for a row depends on nothing else.
  """
  regions: batch_lib.Regions
  language_B: Any
  seed_B: Any


class Written(NamedTuple):
  """Hypotheses, the best first.

  Attributes:
    token_ids_BKL: `<s> ids </s> <pad>…`; without `</s>` where L was reached.
    score_BK: log-probability, divided as the length penalty says.
  """
  token_ids_BKL: jax.Array
  score_BK: jax.Array


class _State(NamedTuple):
  position: jax.Array
  token_ids_BKL: jax.Array
  log_prob_BK: jax.Array
  is_done_BK: jax.Array
  cache: Any


def write(module: nn.Module, params: Any, rows: Rows,
          settings: Settings) -> Written:
  """Returns what a model with a decoder writes of pictures.

  Args:
    module: unbound `M3P`.
    params: its parameters.
    rows: pictures.
    settings: static under jit.
  """
  num_rows, beams = len(rows.seed_B), settings.num_beams
  memory = nn.apply(
      lambda model: (model.encode_images(rows.regions, deterministic=True),
                     rows.regions.mask_BR), module)({'params': params})

  def log_probs(tokens_B, position, cache, count):
    """Returns ([B, K, V], cache) after `count` hypotheses of each picture."""
    each = lambda x: x if x is None else jnp.repeat(x, count, axis=0)
    mask_1L = jnp.arange(settings.max_length)[None] <= position
    hidden, cache = nn.apply(
        lambda model: model.token_logits(model.decode(
            tokens_B[:, None], jnp.repeat(mask_1L, len(tokens_B), axis=0),
            jax.tree.map(each, memory), each(rows.language_B),
            position=position, deterministic=True)),
        module, mutable=[transformer.CACHE])({'params': params, **cache})
    return jax.nn.log_softmax(
        _allowed(hidden)).reshape(num_rows, count, -1), cache

  def start():
    logits_B1V, cache = log_probs(
        jnp.full(num_rows, BOS), jnp.int32(0), {}, 1)
    # A beam begins with one hypothesis, of which its first tokens come.
    is_first_K = jnp.arange(beams) == 0
    first_K = jnp.where(is_first_K | (settings.temperature > 0), 0.0, _LOWEST)
    state = _State(
        jnp.int32(0),
        jnp.full((num_rows, beams, settings.max_length), PAD,
                 jnp.int32).at[..., 0].set(BOS),
        jnp.repeat(first_K[None], num_rows, axis=0),
        jnp.zeros((num_rows, beams), bool),
        _map_rows(lambda x: jnp.repeat(x, beams, axis=0), cache))
    return extend(state, jnp.repeat(logits_B1V, beams, axis=1))

  def extend(state, log_prob_BKV):
    position = state.position + 1
    # A hypothesis that is done goes on with padding, at no cost.
    is_pad_V = jnp.arange(log_prob_BKV.shape[-1]) == PAD
    log_prob_BKV = state.log_prob_BK[..., None] + jnp.where(
        state.is_done_BK[..., None], jnp.where(is_pad_V, 0.0, _LOWEST),
        log_prob_BKV)
    length_BK = _length(state.token_ids_BKL) + ~state.is_done_BK
    if settings.temperature:
      parent_BK = jnp.tile(jnp.arange(beams), (num_rows, 1))
      token_BK = _draw(log_prob_BKV, rows.seed_B, position, settings)
    else:
      parent_BK, token_BK = _best(
          log_prob_BKV / _penalty(length_BK, settings)[..., None])
    pick = lambda x: jax.vmap(lambda x, parent: x[parent])(x, parent_BK)
    tokens_BKL = pick(state.token_ids_BKL)
    log_prob_BK = jnp.take_along_axis(
        pick(log_prob_BKV), token_BK[..., None], axis=-1)[..., 0]
    cache = state.cache if beams == 1 else _map_rows(
        lambda x: pick(x.reshape(num_rows, beams, *x.shape[1:])).reshape(
            x.shape), state.cache, is_own=True)
    return _State(
        position, tokens_BKL.at[..., position].set(token_BK), log_prob_BK,
        pick(state.is_done_BK) | (token_BK == EOS), cache)

  def step(state):
    tokens_BK = state.token_ids_BKL[..., state.position]
    log_prob_BKV, cache = log_probs(
        tokens_BK.ravel(), state.position, state.cache, beams)
    return extend(state._replace(cache=cache), log_prob_BKV)

  state = jax.lax.while_loop(
      lambda state: ((state.position + 1 < settings.max_length)
                     & ~state.is_done_BK.all()), step, start())
  score_BK = state.log_prob_BK / _penalty(
      _length(state.token_ids_BKL), settings)
  order_BK = jnp.argsort(-score_BK, axis=1)
  return Written(
      jnp.take_along_axis(state.token_ids_BKL, order_BK[..., None], axis=1),
      jnp.take_along_axis(score_BK, order_BK, axis=1))


def _allowed(logits_BPV):
  """Returns logits of words and `</s>`; no text has other special tokens."""
  token_V = jnp.arange(logits_BPV.shape[-1])
  return jnp.where(masking.is_word(token_V) | (token_V == EOS), logits_BPV,
                   -jnp.inf)


def _length(token_ids_BKL):
  """Returns how many tokens were written after `<s>`."""
  return (token_ids_BKL != PAD).sum(-1) - 1


def _penalty(length_BK, settings):
  return ((5 + length_BK) / 6) ** settings.length_penalty


def _best(score_BKV):
  """Returns (hypothesis, token) of the K best continuations of a picture."""
  beams = score_BKV.shape[1]
  # Of each hypothesis no more than K can be among them.
  score_BKK, token_BKK = jax.lax.top_k(score_BKV, beams)
  _, place_BK = jax.lax.top_k(
      score_BKK.reshape(len(score_BKK), -1), beams)
  token_BK = jnp.take_along_axis(
      token_BKK.reshape(len(token_BKK), -1), place_BK, axis=1)
  return place_BK // beams, token_BK


def _draw(log_prob_BKV, seed_B, position, settings):
  """Returns tokens drawn by temperature and top-p."""
  logits_BKV = log_prob_BKV / settings.temperature
  if settings.top_p < 1:
    sorted_BKV = -jnp.sort(-logits_BKV, axis=-1)
    up_to_BKV = jnp.cumsum(jax.nn.softmax(sorted_BKV), axis=-1)
    # The last that is needed: those before it have less than `top_p`.
    last_BK1 = (up_to_BKV < settings.top_p).sum(-1, keepdims=True)
    least_BK1 = jnp.take_along_axis(sorted_BKV, jnp.minimum(
        last_BK1, sorted_BKV.shape[-1] - 1), axis=-1)
    logits_BKV = jnp.where(logits_BKV < least_BK1, -jnp.inf, logits_BKV)
  return jax.vmap(lambda seed, logits_KV: jax.random.categorical(
      jax.random.fold_in(jax.random.key(seed), position), logits_KV))(
          seed_B, logits_BKV)


def _map_rows(function, cache, *, is_own=False):
  """Returns the cache, a function applied to arrays whose rows are in front.

  `is_own`: to those of the text alone; a picture's are equal for its K.
  """
  def apply(path, x):
    if is_own and 'cross_attention' in path:
      return x
    return jax.vmap(function)(x) if 'layers' in path else function(x)

  return traverse_util.path_aware_map(apply, cache)
