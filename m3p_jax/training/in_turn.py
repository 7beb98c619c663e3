"""Gradients of the tasks one after the other: only one keeps its activations.

Of itself XLA's CPU compiler runs all forward passes before the first backward
pass, and ignores optimization barriers when it orders them. A conditional is
the unit that it cannot take apart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def value_and_grad(loss: Callable[[Any, int, Any], tuple[jax.Array, dict]],
                   params: Any, tasks: Sequence[Any], *, is_on: jax.Array):
  """Returns ((sum of the losses, all metrics), its gradients).

  Args:
    loss: (params, index, task) -> (its part of the sum, metrics).
    params: what the gradients are for.
    tasks: those of the sum.
    is_on: bool scalar that is always true; the compiler must not know.
  """
  total, metrics = jnp.zeros(()), {}
  sums = jax.tree.map(jnp.zeros_like, params)
  for index, task in enumerate(tasks):

    def add(sums, index=index, task=task):
      found, gradients = jax.value_and_grad(loss, has_aux=True)(
          params, index, task)
      return jax.tree.map(jnp.add, sums, gradients), found

    _, shapes = jax.eval_shape(add, sums)

    def skip(sums, shapes=shapes):
      return sums, jax.tree.map(
          lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    sums, (value, task_metrics) = jax.lax.cond(is_on, add, skip, sums)
    total += value
    metrics |= task_metrics
  return (total, metrics), sums
