"""From hidden states to one vector a row.

Letters: B rows, T length, D width.
"""

import jax
import jax.numpy as jnp


def normalise(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
  """Returns x / max(‖x‖, epsilon) over the last axis, float32; zeros stay."""
  wide = x.astype(jnp.float32)
  # The gradient of a norm at zero is NaN, that of this is 0.
  square = jnp.square(wide).sum(-1, keepdims=True)
  return wide * jax.lax.rsqrt(jnp.maximum(square, epsilon ** 2))


def mean_pool(hidden_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """Returns the float32 mean [B, D] over the positions where the mask is."""
  weight_BT1 = mask_BT[..., None].astype(jnp.float32)
  total_BD = (hidden_BTD.astype(jnp.float32) * weight_BT1).sum(1)
  return total_BD / jnp.maximum(weight_BT1.sum(1), 1.0)
