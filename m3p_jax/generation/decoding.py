"""Text written token by token: greedy, by beam search, or drawn.

All three are one loop over positions. A picture has K hypotheses; what differs
is how the next tokens are chosen. Each layer keeps the keys and values of what
was written, and those of the picture, in the collection `transformer.CACHE`.
Letters: B pictures, K hypotheses of each, L text length, V padded vocabulary,
R regions, D width.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import transformer
from m3p_jax.objectives import masking
from m3p_jax.objectives import parallel

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
  """B pictures to write of, or texts to translate.

  Attributes:
    regions: the pictures'; None where a translation does without.
    language_B: rows of the language table; None where there is none.
    seed_B: uint32; what is drawn for a row depends on nothing else.
    extra: a text in another language, as `Batch.extra` has it; {} = none.
  """
  regions: batch_lib.Regions | None
  language_B: Any
  seed_B: Any
  extra: Mapping[str, Any] = {}


class Written(NamedTuple):
  """Hypotheses, the best first.

  Attributes:
    token_ids_BKL: `<s> ids </s> <pad>…`; without `</s>` where L was reached.
    score_BK: log-probability, divided as the length penalty says.
  """
  token_ids_BKL: Any
  score_BK: Any


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
  loop = _Loop(module, params, rows, settings)
  state = jax.lax.while_loop(
      lambda state: ((state.position + 1 < settings.max_length)
                     & ~state.is_done_BK.all()), loop.step, loop.start())
  score_BK = state.log_prob_BK / _penalty(
      _length(state.token_ids_BKL), settings)
  order_BK = jnp.argsort(-score_BK, axis=1)
  return Written(
      jnp.take_along_axis(state.token_ids_BKL, order_BK[..., None], axis=1),
      jnp.take_along_axis(score_BK, order_BK, axis=1))


class _Loop:
  """Its first step, and the others."""

  def __init__(self, module, params, rows, settings):
    self._module, self._variables = module, {'params': params}
    self._rows, self._settings = rows, settings
    self._memory = nn.apply(
        lambda model: parallel.memory(
            model, rows.regions, rows.extra, rows.language_B,
            deterministic=True), module)(self._variables)

  def start(self) -> _State:
    """Returns the state after the first tokens, which come of `<s>` alone."""
    beams, num_rows = self._settings.num_beams, len(self._rows.seed_B)
    log_prob_B1V, cache = self._read(
        jnp.full((num_rows, 1), BOS), jnp.int32(0), {})
    # A beam begins with one hypothesis, whose first tokens all are.
    is_real_K = (jnp.arange(beams) == 0) | (self._settings.temperature > 0)
    each = lambda x: jnp.repeat(x, beams, axis=0)
    return self._extend(_State(
        jnp.int32(0),
        jnp.full((num_rows, beams, self._settings.max_length), PAD,
                 jnp.int32).at[..., 0].set(BOS),
        jnp.tile(jnp.where(is_real_K, 0.0, _LOWEST), (num_rows, 1)),
        jnp.zeros((num_rows, beams), bool), _map_rows(each, cache)),
                        jnp.repeat(log_prob_B1V, beams, axis=1))

  def step(self, state: _State) -> _State:
    """Returns the state after another token of each hypothesis."""
    log_prob_BKV, cache = self._read(
        state.token_ids_BKL[..., state.position], state.position, state.cache)
    return self._extend(state._replace(cache=cache), log_prob_BKV)

  def _read(self, tokens_BK, position, cache):
    """Returns (log-probabilities of the next tokens [B, K, V], cache)."""
    count = tokens_BK.shape[1]
    each = lambda x: jnp.repeat(x, count, axis=0)
    mask_BL = jnp.tile(jnp.arange(self._settings.max_length) <= position,
                       (tokens_BK.size, 1))
    # The cache has what each layer reads of the pictures, after the first.
    logits_B1V, cache = nn.apply(
        lambda model: model.token_logits(model.decode(
            tokens_BK.reshape(-1, 1), mask_BL, *jax.tree.map(
                each, (self._memory, self._rows.language_B)),
            position=position, deterministic=True)),
        self._module, mutable=[transformer.CACHE])(self._variables | cache)
    return jax.nn.log_softmax(_allowed(logits_B1V)).reshape(
        *tokens_BK.shape, -1), cache

  def _extend(self, state, log_prob_BKV):
    """Returns the state with a token more, chosen as the settings say."""
    settings, position = self._settings, state.position + 1
    # A hypothesis that is done goes on with padding, at no cost.
    is_pad_V = jnp.arange(log_prob_BKV.shape[-1]) == PAD
    log_prob_BKV = state.log_prob_BK[..., None] + jnp.where(
        state.is_done_BK[..., None], jnp.where(is_pad_V, 0.0, _LOWEST),
        log_prob_BKV)
    if settings.temperature:
      parent_BK = jnp.tile(
          jnp.arange(settings.num_beams), (len(log_prob_BKV), 1))
      token_BK = _draw(log_prob_BKV, self._rows.seed_B, position, settings)
    else:
      length_BK = _length(state.token_ids_BKL) + ~state.is_done_BK
      parent_BK, token_BK = _best(
          log_prob_BKV / _penalty(length_BK, settings)[..., None])

    pick = jax.vmap(lambda x_K, parent_K: x_K[parent_K])
    of_parents = lambda x: pick(
        x.reshape(*parent_BK.shape, *x.shape[1:]), parent_BK).reshape(x.shape)
    return _State(
        position,
        pick(state.token_ids_BKL, parent_BK).at[..., position].set(token_BK),
        jax.vmap(lambda x_KV, parent_K, token_K: x_KV[parent_K, token_K])(
            log_prob_BKV, parent_BK, token_BK),
        pick(state.is_done_BK, parent_BK) | (token_BK == EOS),
        _map_rows(of_parents, state.cache, is_own=True))


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
