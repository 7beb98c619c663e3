"""Gradients of a batch that is worked on in parts, one after the other.

They are those of the whole batch: a task's totals are added up and divided
by its weight over all parts, once. Whatever the tasks draw (masks, wrong
pairs) is drawn for the whole batch before it is split, where an objective has
a `prepare`. One that has none - the contrastive loss, hard negatives - sees
its part alone: its negatives are the part's rows. Dropout is drawn for each
part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics as metrics_lib
from m3p_jax import optimizer

Mean = metrics_lib.Mean


def value_and_grad(trainable: Any, frozen: Any,
                   batches: Mapping[str, batch_lib.Batch], key: jax.Array, *,
                   model: nn.Module, tasks: Sequence[Any], steps: int):
  """Returns ((loss, metrics), gradients) as `jax.value_and_grad` does.

  Args:
    trainable: parameters with gradients.
    frozen: the others.
    batches: each task's rows; their number divides by `steps`.
    key: of this update.
    model: unbound M3P.
    tasks: of `train_step.Task`.
    steps: parts.
  """
  keys = [jax.random.split(jax.random.fold_in(key, index))
          for index in range(len(tasks))]
  parts = {}
  for task, (loss_key, _) in zip(tasks, keys, strict=True):
    prepared = task.prepare and task.prepare(batches[task.name], loss_key)
    parts[task.name] = (
        prepared is not None,
        _split(batches[task.name] if prepared is None else prepared, steps))
  is_prepared = {name: flag for name, (flag, _) in parts.items()}
  rows = {name: part for name, (_, part) in parts.items()}

  def part_metrics(trainable, index, rows):
    metrics = {}
    for task, (loss_key, dropout_key) in zip(tasks, keys, strict=True):

      def bound_loss(module, task=task, loss_key=loss_key):
        if is_prepared[task.name]:
          return task.prepared_loss(module, rows[task.name])
        return task.loss(module, rows[task.name],
                         jax.random.fold_in(loss_key, index))

      mean, others = nn.apply(bound_loss, model)(
          {'params': optimizer.merge(trainable, frozen)},
          rngs={'dropout': jax.random.fold_in(dropout_key, index)})
      metrics[f'{task.name}/loss'] = mean
      metrics |= {f'{task.name}/{name}': value
                  for name, value in others.items()}
    return metrics

  indices = jnp.arange(steps)
  # Masks alone decide the weights: the compiler drops the rest of this pass.
  weights = jax.tree.map(jnp.sum, jax.lax.map(
      lambda xs: {task.name: part_metrics(trainable, *xs)[
          f'{task.name}/loss'].weight for task in tasks}, (indices, rows)))

  def part_loss(trainable, index, rows):
    metrics = part_metrics(trainable, index, rows)
    total = sum(
        task.weight * Mean(metrics[f'{task.name}/loss'].total,
                           weights[task.name]).compute() for task in tasks)
    return total, metrics

  def add(sums, xs):
    return jax.tree.map(jnp.add, sums, jax.value_and_grad(
        part_loss, has_aux=True)(trainable, *xs)), None

  zeros = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      jax.eval_shape(jax.value_and_grad(part_loss, has_aux=True), trainable,
                     indices[0], jax.tree.map(lambda x: x[0], rows)))
  return jax.lax.scan(add, zeros, (indices, rows))[0]


def _split(rows: Any, steps: int) -> Any:
  """Returns rows [B, ...] as parts [steps, B / steps, ...].

  Part i has the rows i, i + steps, ...: each device's rows give to every part.
  """
  return jax.tree.map(
      lambda x: jnp.moveaxis(
          x.reshape(x.shape[0] // steps, steps, *x.shape[1:]), 1, 0), rows)
