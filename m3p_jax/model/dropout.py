"""Dropout whose masks are a function of a seed and of where a number stands.

`nn.Dropout` draws from the library's generator: on XLA's CPU compiler a loop
of its own for each mask, which is written to memory and held until the
backward pass. A hash of seed and position is computed where it is used, each
time anew; split over devices, each computes its part.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp


def seeds(key: jax.Array, *shape: int) -> jax.Array:
  """Returns independent seeds [*shape, 2], uint32.

  Args:
    key: random key.
    *shape: how many.
  """
  return jax.random.bits(key, (*shape, 2), jnp.uint32)


def unstack(seeds_S2: jax.Array | None, count: int) -> list[jax.Array | None]:
  """Returns `count` seeds [2] of an array of them; of None, as many None."""
  return [None] * count if seeds_S2 is None else list(seeds_S2)


def factors(seed: jax.Array, rate: float, shape: Sequence[int]) -> jax.Array:
  """Returns what dropout multiplies by, float32: 0, or 1 / the share kept.

  Args:
    seed: [2], of `seeds`.
    rate: share dropped, in [0, 1); rounded to 2^-32.
    shape: of fewer than 2^32 numbers, or they repeat.
  """
  threshold = round((1 - rate) * 2 ** 32)
  is_kept = _bits(seed, shape) < jnp.uint32(min(threshold, 2 ** 32 - 1))
  return jnp.where(is_kept, 2 ** 32 / threshold, 0.)


def drop(x: jax.Array, seed: jax.Array | None, rate: float) -> jax.Array:
  """Returns x with a share of its numbers set to 0, the others scaled up.

  Args:
    x: any array; the result has its dtype.
    seed: as in `factors`; None = nothing is dropped.
    rate: as in `factors`.
  """
  if seed is None or not rate:
    return x
  return _drop(x, seed, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x, seed, rate):
  return x * factors(seed, rate, x.shape).astype(x.dtype)


# The factors are made again: a loop of layers would keep those of all.
_drop.defvjp(lambda x, seed, rate: (_drop(x, seed, rate), seed),
             lambda rate, seed, gradient: (_drop(gradient, seed, rate), None))


def _bits(seed, shape):
  """Returns uint32 of the shape: each position's number, hashed with the seed.

  Three multiplications and shifts let every bit depend on all; the second half
  of the seed comes after the first, so that two seeds' bits are no shifted
  copies of each other. Source of the constants: C. Wellons, "Prospecting for
  Hash Functions", 2018 (triple32).
  """
  position, stride = jnp.uint32(0), 1
  for axis in reversed(range(len(shape))):
    position += (jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
                 * jnp.uint32(stride % 2 ** 32))
    stride *= shape[axis]
  bits = position + seed[0]
  bits = (bits ^ (bits >> 17)) * jnp.uint32(0xed5ad4bb) ^ seed[1]
  bits = (bits ^ (bits >> 11)) * jnp.uint32(0xac4c1b51)
  bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848bab)
  return bits ^ (bits >> 14)
