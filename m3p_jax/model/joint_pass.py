"""The joint pass of many pictures with many captions, for the match logit.

What the mathematics allows to skip is skipped; the logits are those of
`M3P.encode` and `match_logits`, without dropout:

- What enters the first layer, its queries, keys and values, and the attention
  of regions to regions and of words to words do not depend on the other half:
  they are computed once a picture and once a caption (`Half`). Two attentions
  over parts of the keys merge by their log-sum-exps.
- Match head 'first' reads position 0 alone, so the last layer computes that
  position alone (`layer_stack.read_last`).
- Padding of one half that no row of a batch needs can be left out: positions
  are told, not counted.

Letters: B rows, I pictures, C captions, R regions, L text length, T either or
both, D width, H heads, K head size, E shared space.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import encoded as encoded_lib
from m3p_jax.model import layer_stack
from m3p_jax.model import prepared
from m3p_jax.model import transformer


class Half(NamedTuple):
  """What a picture, or a caption, brings into any joint pass.

  Attributes:
    hidden_BTD: what enters the first layer.
    mask_BT: False at padding.
    query_BTHK: of the first layer, scaled.
    key_BTHK: of the first layer.
    value_BTHK: of the first layer.
    mixed_BTHK: its attention to the half itself.
    log_sum_BTH: float32, log-sum-exp of that attention's logits.
    pooled_BE: float32, of a picture whose match head reads it, else None.
  """
  hidden_BTD: jax.Array
  mask_BT: jax.Array
  query_BTHK: jax.Array
  key_BTHK: jax.Array
  value_BTHK: jax.Array
  mixed_BTHK: jax.Array
  log_sum_BTH: jax.Array
  pooled_BE: jax.Array | None


def picture_half(model, regions: batch_lib.Regions,
                 position_BR: jax.Array) -> Half:
  """Returns what pictures bring.

  Args:
    model: bound `M3P`.
    regions: of B pictures; column 0 is their region at position 0.
    position_BR: int, where each region stands in its picture.
  """
  pooled_BE = (None if model.config.match_head == 'first'
               else model.pooled_regions(regions))
  return _half(model, model.place_regions(regions, position_BR),
               regions.mask_BR, pooled_BE)


def text_half(model, token_ids_BL: jax.Array, text_mask_BL: jax.Array, *,
              start: int) -> Half:
  """Returns what captions bring.

  Args:
    model: bound `M3P`.
    token_ids_BL: the captions.
    text_mask_BL: False at padding.
    start: position of the first token: the number of regions, absent ones
      included.
  """
  return _half(
      model, model.place_text(token_ids_BL, text_mask_BL, start=start),
      text_mask_BL, None)


def match_grid(model, pictures: Half, texts: Half) -> jax.Array:
  """Returns the match logits [I, C], float32, of all pictures and captions."""
  meet = jax.vmap(jax.vmap(_meet, (None, 0)), (0, None))
  shape = pictures.mask_BT.shape[0], texts.mask_BT.shape[0]
  rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]),
                      meet(pictures, texts))
  return _match(model, rows, pictures.mask_BT.shape[1]).reshape(shape)


def match_pairs(model, pictures: Half, texts: Half) -> jax.Array:
  """Returns the match logits [B], float32, of each picture and its caption."""
  return _match(model, jax.vmap(_meet)(pictures, texts),
                pictures.mask_BT.shape[1])


class _Rows(NamedTuple):
  """Pairs on their way through the first layer; under `vmap`, one pair."""
  hidden_BTD: jax.Array
  mask_BT: jax.Array
  mixed_BTHK: jax.Array
  pooled_BE: jax.Array | None


def _half(model, hidden_BTD, mask_BT, pooled_BE) -> Half:
  c = model.config
  attention = _layer(model, 0)['attention']
  query_BTHK, key_BTHK, value_BTHK = (
      transformer.projection(c, name).apply(
          {'params': attention[name]}, hidden_BTD)
      for name in ('query', 'key', 'value'))
  query_BTHK *= c.head_size ** -0.5
  mixed_BTHK, log_sum_BTH = jax.vmap(_attend)(
      query_BTHK, key_BTHK, value_BTHK, mask_BT)
  return Half(hidden_BTD, mask_BT, query_BTHK, key_BTHK, value_BTHK,
              mixed_BTHK, log_sum_BTH, pooled_BE)


def _attend(query_THK, key_SHK, value_SHK, mask_S):
  """Returns (weighted values [T, H, K], log-sum-exps of the logits [T, H])."""
  logits_HTS = jnp.einsum('THK,SHK->HTS', query_THK, key_SHK,
                          preferred_element_type=jnp.float32)
  logits_HTS = jnp.where(mask_S, logits_HTS, jnp.finfo(jnp.float32).min)
  weights_HTS = jax.nn.softmax(logits_HTS).astype(value_SHK.dtype)
  mixed_THK = jnp.einsum('HTS,SHK->THK', weights_HTS, value_SHK,
                         preferred_element_type=jnp.float32)
  return (mixed_THK.astype(value_SHK.dtype),
          jax.nn.logsumexp(logits_HTS, axis=-1).T)


def _meet(picture: Half, text: Half) -> _Rows:
  """Returns one pair, its halves having attended to each other."""

  def merge(own: Half, other: Half):
    mixed_THK, log_sum_TH = _attend(own.query_BTHK, other.key_BTHK,
                                    other.value_BTHK, other.mask_BT)
    share_TH1 = jax.nn.sigmoid(own.log_sum_BTH - log_sum_TH)[..., None]
    return (share_TH1 * own.mixed_BTHK + (1.0 - share_TH1) * mixed_THK).astype(
        own.hidden_BTD.dtype)

  return _Rows(
      jnp.concatenate([picture.hidden_BTD, text.hidden_BTD]),
      jnp.concatenate([picture.mask_BT, text.mask_BT]),
      jnp.concatenate([merge(picture, text), merge(text, picture)]),
      picture.pooled_BE)


def _match(model, rows: _Rows, num_regions: int) -> jax.Array:
  """Returns the match logits [B] of pairs in the first layer."""
  c, mask_BT, hidden_BTD = model.config, rows.mask_BT, rows.hidden_BTD
  last = c.num_layers - 1
  reads_first = c.match_head == 'first'
  if not (reads_first and last == 0):
    params = _layer(model, 0)
    hidden_BTD = layer_stack.finish(
        c, params, hidden_BTD,
        layer_stack.merge_heads(c, params, rows.mixed_BTHK), mask_BT)
  if reads_first:
    hidden_BTD = layer_stack.run(
        c, _layers(model, 1, last), hidden_BTD, mask_BT)
    first_B1D = layer_stack.read_last(
        c, _layer(model, last), hidden_BTD, mask_BT,
        jnp.zeros((len(hidden_BTD), 1), jnp.int32))
    return model.match_logits(encoded_lib.Encoded(first_B1D, None))
  hidden_BTD = layer_stack.run(
      c, _layers(model, 1, c.num_layers), hidden_BTD, mask_BT)
  regions_BRD, text_BLD = jnp.split(hidden_BTD, [num_regions], axis=1)
  mask_BR, text_mask_BL = jnp.split(mask_BT, [num_regions], axis=1)
  return model.match_logits(encoded_lib.Encoded(
      regions_BRD, text_BLD, model.match_inputs(
          regions_BRD, text_BLD, mask_BR, text_mask_BL, rows.pooled_BE)))


def _layer(model, index: int) -> Any:
  """Returns one layer's parameters."""
  return prepared.layer(model.variables['params']['encoder'], index)


def _layers(model, first: int, end: int) -> Any:
  """Returns the parameters of layers first … end − 1, as `run` takes them."""
  encoder = model.variables['params']['encoder']
  if prepared.are_prepared(encoder):
    return [_layer(model, index) for index in range(first, end)]
  return jax.tree.map(lambda x: x[first:end], encoder)
