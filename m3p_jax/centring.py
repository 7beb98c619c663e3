"""Data-dependent first values of the match head.

The states of position 0 differ by a small part of what they share: measured
after E5's warm start, the shared vector is 2.6 times as long as the
differences, and a match head with ordinary first values stays at chance for
hundreds of steps. Folding the mean and the spread into the pooler mends that.
Letters: B rows, D width.
Source: Krähenbühl et al. 2016, "Data-dependent Initializations of
Convolutional Neural Networks".
"""

from collections.abc import Iterable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.objectives import negatives


def centre_pooler(model: nn.Module, params: Any,
                  batches: Iterable[batch_lib.Batch], key: jax.Array) -> Any:
  """Returns params whose pooler sees centred states of about unit spread.

  Args:
    model: unbound M3P.
    params: unboxed; only the pooler changes.
    batches: rows with regions, right pairs; as many wrong ones are made.
    key: random key of the wrong pairs.
  """
  def first_states(module, batch, key):
    size = batch.token_ids_BL.shape[0]
    wrong_B1, _ = negatives.draw(
        key, jnp.zeros((size, size)), batch.regions.image_id_B, count=1)
    rows_B = jnp.arange(size)
    pairs = negatives.pair(batch, jnp.concatenate([rows_B, rows_B]),
                           jnp.concatenate([rows_B, wrong_B1[:, 0]]))
    return module.encode(pairs, deterministic=True).regions_BRD[:, 0]

  encode = jax.jit(nn.apply(first_states, model))
  states_BD = jnp.concatenate([
      encode({'params': params}, batch, jax.random.fold_in(key, i))
      for i, batch in enumerate(batches)]).astype(jnp.float32)
  mean_D, spread = states_BD.mean(0), states_BD.std(0).mean() + 1e-6
  kernel_DX = params['pooler']['kernel'] / spread
  bias_X = params['pooler']['bias'] - jnp.einsum(
      'D,DX->X', mean_D, kernel_DX)
  return {**params, 'pooler': {'kernel': kernel_DX, 'bias': bias_X}}
