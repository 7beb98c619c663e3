"""The match head's data-dependent first values."""

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import centring
from tests import models


def test_pooler_sees_centred_states_and_nothing_else_changes():
  module, params = models.tiny()
  batches = [models.batch(rows=16, seed=seed) for seed in range(4)]
  fitted = centring.centre_pooler(module, params, batches, jax.random.key(0))
  assert set(fitted) == set(params)
  for name in set(params) - {'pooler'}:
    jax.tree.map(np.testing.assert_array_equal, fitted[name], params[name])

  def inputs(model, batch):
    encoded = model.encode(batch, deterministic=True)
    return model.pooler(encoded.regions_BRD[:, 0])

  old, new = (
      jnp.concatenate([models.call(inputs, b, params=p) for b in batches])
      for p in (params, fitted))
  bias = params['pooler']['bias']
  # A right pair's states have the mean of all, but for the wrong pairs' noise.
  assert np.abs((new - bias).mean(0)).max() < 0.3
  def states(model, batch):
    return model.encode(batch, deterministic=True).regions_BRD[:, 0]

  spread = float(jnp.concatenate(
      [models.call(states, b) for b in batches]).std(0).mean())
  # Divided by the spread of right and wrong pairs, here known by the right.
  np.testing.assert_allclose(
      float(old.std(0).mean() / new.std(0).mean()), spread, rtol=0.1)
  # Only place and scale differ: what told two rows apart still does.
  np.testing.assert_allclose(
      np.corrcoef(np.asarray(old - old.mean(0)).ravel(),
                  np.asarray(new - new.mean(0)).ravel())[0, 1], 1, atol=1e-4)
