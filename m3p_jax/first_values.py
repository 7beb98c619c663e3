"""First values of the heads that depend on the training data.

Without them the first hundreds of steps go into what a few batches tell: which
tokens and classes are frequent at all, and where the match head's inputs lie.
Letters: B rows, D width, E shared space.
Source: Krähenbühl et al. 2016, "Data-dependent Initializations of
Convolutional Neural Networks".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.objectives import frequencies as frequencies_lib
from m3p_jax.objectives import negatives


def fit(model: nn.Module, params: Any,
        batches: Sequence[Mapping[str, batch_lib.Batch]],
        frequencies: Mapping[str, frequencies_lib.Frequencies],
        key: jax.Array, *, writes: bool) -> Any:
  """Returns params with all heads fitted that the data decides.

  `batches` are the first rows of each task; the token bias is the mixture of
  the streams' frequencies. `writes` says whether a task writes text, whose end
  is a token then; masked tasks never ask for it.
  """
  if frequencies:
    found = frequencies_lib.mixture(frequencies)
    if writes:
      found = found._replace(log_token_V=found.log_written_V())
    params = fit_masked_heads(params, found)
  paired = [batch for tasks in batches for batch in tasks.values()
            if batch.regions is not None]
  return centre_match_head(model, params, paired, key) if paired else params


def fit_masked_heads(params: Any,
                     frequencies: frequencies_lib.Frequencies) -> Any:
  """Returns params whose masked heads begin at the data's frequencies.

  Biases are set, and the last maps of the region heads begin at zero; the map
  to tokens is the word table, and stays. Frequencies that are None change
  nothing.
  """
  regression, classes = params['region_regression'], params['region_class']
  if frequencies.feature_F is not None:
    regression = _constant(regression, frequencies.feature_F)
    classes = {**classes, 'out': _constant(
        classes['out'], frequencies.log_class_C)}
  return {**params, 'token_bias': jnp.asarray(frequencies.log_token_V),
          'region_regression': regression, 'region_class': classes}


def _constant(linear: Any, bias: np.ndarray) -> Any:
  return {'kernel': jnp.zeros_like(linear['kernel']),
          'bias': jnp.asarray(bias)}


def centre_match_head(model: nn.Module, params: Any,
                      batches: Sequence[batch_lib.Batch],
                      key: jax.Array) -> Any:
  """Returns params whose pooler sees centred states of about unit spread.

  The states of position 0 differ by a small part of what they share: measured
  after E5's warm start, the shared vector is 2.6 times as long as the
  differences, and a match head with ordinary first values stays at chance for
  hundreds of steps.

  Only the pooler and the match head's bias change: the right pairs of
  `batches` and as many wrong ones score 0 on average.
  """
  def first_states(module, batch, key):
    size = batch.token_ids_BL.shape[0]
    wrong_B1, _ = negatives.draw(
        key, jnp.zeros((size, size)), batch.regions.image_id_B, count=1)
    rows_B = jnp.arange(size)
    pairs = negatives.pair(batch, jnp.concatenate([rows_B, rows_B]),
                           jnp.concatenate([rows_B, wrong_B1[:, 0]]))
    encoded = module.encode(pairs, deterministic=True)
    return encoded.regions_BRD[:, 0], module.match_logits(encoded)

  apply = jax.jit(nn.apply(first_states, model))

  def run(params):
    states, logits = zip(*(
        sharding.settle(
            apply({'params': params}, batch, jax.random.fold_in(key, i)))
        for i, batch in enumerate(batches)), strict=True)
    return (jnp.concatenate(states).astype(jnp.float32),
            jnp.concatenate(logits))

  states_BD, _ = run(params)
  mean_D, spread = states_BD.mean(0), states_BD.std(0).mean() + 1e-6
  kernel_DX = params['pooler']['kernel'] / spread
  bias_X = params['pooler']['bias'] - jnp.einsum(
      'D,DX->X', mean_D, kernel_DX)
  params = {**params, 'pooler': {'kernel': kernel_DX, 'bias': bias_X}}
  _, logits_B = run(params)
  match = params['match']
  return {**params, 'match': {
      **match, 'bias': match['bias'] - logits_B.mean()}}
