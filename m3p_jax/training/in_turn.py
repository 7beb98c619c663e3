"""Gradients of the tasks one after the other: only one keeps its activations.

Of itself XLA's CPU compiler runs all forward passes before the first backward
pass, and drops optimization barriers before it orders them. What it keeps to
is data: here each task's rows depend on the gradients of the task before.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def value_and_grad(loss: Callable[[Any, Any, jax.Array, Any],
                                  tuple[jax.Array, dict]],
                   params: Any, batches: Mapping[str, Any],
                   tasks: Mapping[int, Any], *, is_on: jax.Array,
                   before: Any = None):
  """Returns ((sum of the losses, all metrics), its gradients).

  Args:
    loss: (params, the task's rows, its number, task) -> (its part of the sum,
      metrics). What is drawn at random must follow from the number, or all of
      it is drawn at first.
    params: what the gradients are for.
    batches: each task's rows, by its name.
    tasks: those of the sum, by number.
    is_on: bool scalar that is always true; the compiler must not know.
    before: what this returned for other tasks, which is added; None = nothing.
  """
  (total, metrics), sums = before or ((jnp.zeros(()), {}), None)
  for place, (number, task) in enumerate(tasks.items()):
    rows = batches[task.name], jnp.int32(number)
    if place:
      rows = _after(sums, rows, is_on)
    (value, task_metrics), gradients = jax.value_and_grad(loss, has_aux=True)(
        params, *rows, task)
    sums = gradients if sums is None else jax.tree.map(
        jnp.add, sums, gradients)
    total += value
    metrics = metrics | task_metrics
  return (total, metrics), sums


def _after(gradients, rows, is_on: jax.Array):
  """Returns the rows unchanged, and not known before the gradients are."""
  # Numbers of every product that a gradient is made of: layers are stacked.
  seen = sum((jnp.atleast_1d(leaf)[..., 0].sum()
              for leaf in jax.tree.leaves(gradients)), jnp.zeros(()))
  nothing = jnp.where(is_on, 0, seen.astype(jnp.int32))

  def tie(array):
    if array.dtype == bool:
      return array ^ (nothing != 0)
    return array + nothing.astype(array.dtype)

  return jax.tree.map(tie, rows)
