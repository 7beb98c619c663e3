"""Dropout that draws sixteen random bits a number.

`nn.Dropout` draws 64 a number, of which it compares 32 with the rate: at a
quarter of the cost sixteen are drawn, and XLA's CPU compiler holds those of
all layers until the backward pass.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

_BITS = 16


def factors(key: jax.Array, rate: float,
            shape: tuple[int, ...]) -> jax.Array:
  """Returns what dropout multiplies by, float32: 0, or 1 / the share kept.

  Args:
    key: random key.
    rate: share dropped, in [0, 1); rounded to 1 / 65,536.
    shape: of two axes at least; the last but one should not be split over
      devices.
  """
  threshold = round((1 - rate) * 2 ** _BITS)
  length = shape[-2]
  words = jax.random.bits(key, (*shape[:-2], -(-length // 2), shape[-1]))
  halves = jnp.concatenate([words & (2 ** _BITS - 1), words >> _BITS], axis=-2)
  halves = jax.lax.slice_in_dim(halves, 0, length, axis=-2)
  return jnp.where(halves < threshold, 2 ** _BITS / threshold, 0.)


class Dropout(nn.Module):
  """Sets a share of the numbers to zero and scales up the others.

  Attributes:
    rate: share dropped.
    deterministic: nothing is dropped; here or in the call.
  """
  rate: float
  deterministic: bool | None = None

  def key(self, deterministic: bool | None = None) -> jax.Array | None:
    """Returns the key of the next draw; None = nothing is dropped."""
    is_off = nn.merge_param(
        'deterministic', self.deterministic, deterministic)
    return None if is_off or not self.rate else self.make_rng('dropout')

  def __call__(self, x: jax.Array,
               deterministic: bool | None = None) -> jax.Array:
    """Returns x with numbers dropped, in its dtype; two axes at least."""
    key = self.key(deterministic)
    if key is None:
      return x
    return x * factors(key, self.rate, x.shape).astype(x.dtype)
