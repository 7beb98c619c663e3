"""Gradients of a batch that is worked on in parts, one after the other.

They are those of the whole batch: a task's totals are added up and divided
by its weight over all parts, once. Whatever the tasks draw (masks, wrong
pairs) is drawn for the whole batch before it is split, where an objective has
a `prepare`. One that has none - the contrastive loss, hard negatives - sees
its part alone: its negatives are the part's rows. Dropout is drawn for each
part.
"""

from collections.abc import Mapping, Sequence
import functools
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
  rows, losses = {}, {}
  for task, (loss_key, dropout_key) in zip(tasks, keys, strict=True):
    prepared = task.prepare and task.prepare(batches[task.name], loss_key)
    rows[task.name] = _split(
        batches[task.name] if prepared is None else prepared, steps)
    losses[task.name] = functools.partial(
        _part_loss, task=task, is_prepared=prepared is not None,
        loss_key=loss_key, dropout_key=dropout_key, model=model)

  def part_metrics(trainable, index, rows):
    params, metrics = optimizer.merge(trainable, frozen), {}
    for name, loss in losses.items():
      mean, others = loss(params, index, rows[name])
      metrics[f'{name}/loss'] = mean
      metrics |= {f'{name}/{key}': value for key, value in others.items()}
    return metrics

  indices = jnp.arange(steps)
  # Masks alone decide the weights: the compiler drops the rest of this pass.
  weights = jax.tree.map(jnp.sum, jax.lax.map(
      lambda xs: {name: metrics.weight for name, metrics
                  in part_metrics(trainable, *xs).items()}, (indices, rows)))

  def part_loss(trainable, index, rows):
    metrics = part_metrics(trainable, index, rows)
    means = [task.weight * Mean(metrics[f'{task.name}/loss'].total,
                                weights[f'{task.name}/loss']).compute()
             for task in tasks]
    return sum(means), metrics

  def add(sums, xs):
    return jax.tree.map(jnp.add, sums, jax.value_and_grad(
        part_loss, has_aux=True)(trainable, *xs)), None

  zeros = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      jax.eval_shape(jax.value_and_grad(part_loss, has_aux=True), trainable,
                     indices[0], jax.tree.map(lambda x: x[0], rows)))
  return jax.lax.scan(add, zeros, (indices, rows))[0]


def _part_loss(params, index, rows, *, task, is_prepared, loss_key,
               dropout_key, model):
  """Returns (Mean, metrics) of one task on one part."""

  def bound_loss(module):
    if is_prepared:
      return task.prepared_loss(module, rows)
    return task.loss(module, rows, jax.random.fold_in(loss_key, index))

  return nn.apply(bound_loss, model)(
      {'params': params},
      rngs={'dropout': jax.random.fold_in(dropout_key, index)})


def _split(rows: Any, steps: int) -> Any:
  """Returns rows [B, ...] as parts [steps, B / steps, ...].

  Part i has the rows i, i + steps, ...: each device's rows give to every part.
  """
  return jax.tree.map(
      lambda x: jnp.moveaxis(
          x.reshape(x.shape[0] // steps, steps, *x.shape[1:]), 1, 0), rows)
