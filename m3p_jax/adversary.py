"""Adversarial training: gradients beside noise that makes the loss larger.

FreeLB: noise on the embedded words climbs the loss for a few steps, and the
gradients of all of them count. It is added wherever an objective embeds words,
so that objectives know nothing of it.
Letters: B rows, L text length, D width.
Source: Zhu et al. 2020, "FreeLB", algorithm 1: norms are a row's, and the steps
share their masks and dropout.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

_EMBED = '_embed_words'  # Of `M3P`, as it is called.
_PAD = 1
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Settings:
  """How noise climbs.

  Attributes:
    steps: gradients of an update; each is a forward and a backward pass.
    rate: by how much a step lengthens a row's noise, along its gradient.
    first_norm: of a row's noise at the first step, drawn at random; 0 = none.
    max_norm: of a row's noise; 0 = any.
  """
  steps: int = 2
  rate: float = 0.1
  first_norm: float = 0.0
  max_norm: float = 0.0


def gradient(total: Callable[..., Any], settings: Settings):
  """Returns what gives the sums over the steps: (gradient, metrics).

  Args:
    total: (learned, batch, key) → (loss, metrics that add up).
    settings: of the noise.
  """

  def run(learned, batch, key):
    seen: list[tuple[jax.Array, jax.Array]] = []

    def look(out, ids_BL):
      seen.append((out, ids_BL != _PAD))
      return out

    with nn.intercept_methods(_meet(look)):
      total(learned, batch, key)  # Only to see what is embedded.
    noise = [_with_norm(
        settings.first_norm, mask_BL[..., None] * jax.random.uniform(
            jax.random.fold_in(key, index), out.shape, minval=-1.0))
             for index, (out, mask_BL) in enumerate(seen)]

    def noisy(learned, noise):
      left = iter(noise)
      with nn.intercept_methods(_meet(lambda out, ids_BL: out + next(
          left).astype(out.dtype))):
        return total(learned, batch, key)

    both = jax.grad(noisy, argnums=(0, 1), has_aux=True)

    def step(carry, _):
      noise, sums = carry
      (slope, climb), metrics = both(learned, noise)
      noise = [_within(settings.max_norm, one + _with_norm(settings.rate, up))
               for one, up in zip(noise, climb, strict=True)]
      return (noise, jax.tree.map(jnp.add, sums, (slope, metrics))), None

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(lambda: _first(both(learned, noise))))
    (_, sums), _ = jax.lax.scan(
        step, (noise, zeros), length=settings.steps)
    return sums

  return run


def _first(found):
  (slope, _), metrics = found
  return slope, metrics


def _meet(function: Callable[[jax.Array, jax.Array], jax.Array]):
  """Returns an interceptor that gives what words are embedded to a function."""

  def intercept(call, args: Sequence[Any], kwargs, context):
    out = call(*args, **kwargs)
    return function(out, args[0]) if context.method_name == _EMBED else out

  return intercept


def _norm(noise_BLD):
  return jnp.sqrt(jnp.square(noise_BLD).sum((1, 2), keepdims=True))


def _with_norm(norm: float, noise_BLD: jax.Array) -> jax.Array:
  """Returns noise of this norm in every row, 0 where there is none."""
  return norm * noise_BLD / jnp.maximum(_norm(noise_BLD), _TINY)


def _within(norm: float, noise_BLD: jax.Array) -> jax.Array:
  if not norm:
    return noise_BLD
  return noise_BLD * jnp.minimum(
      1.0, norm / jnp.maximum(_norm(noise_BLD), _TINY))
