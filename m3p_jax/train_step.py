"""One update: each task's gradient, part by part, their weighted sum, AdamW."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
from flax import struct
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
import optax

from m3p_jax import adversary
from m3p_jax import batch as batch_lib
from m3p_jax import metrics as metrics_lib
from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax import shares

Mean = metrics_lib.Mean
Metrics = dict[str, Mean]


class TrainState(struct.PyTreeNode):
  """What an update changes, and the parameters that it does not.

  Attributes:
    step: int32 scalar, updates so far.
    params: the trainable parameters; they alone have gradients and moments.
    frozen: the other parameters (see `optimizer.split`).
    opt_state: of optax.
  """
  step: Any
  params: Any
  frozen: Any
  opt_state: Any

  def all_params(self) -> dict:
    """Returns trainable and frozen parameters in one tree."""
    return optimizer.merge(self.params, self.frozen)

  def swapped(self) -> 'TrainState':
    """Returns this state with the average of the weights in their place.

    And the weights in the average's: twice is as before. Without an average
    (`optimizer.average`) nothing changes.
    """
    average = optax.tree.get(self.opt_state, 'average')
    if average is None:
      return self
    return self.replace(params=average, opt_state=optax.tree.set(
        self.opt_state, average=self.params))

  def with_params(self, params: Any) -> 'TrainState':
    """Returns this state with other values, given in one tree."""
    flat = traverse_util.flatten_dict(params)
    trainable = traverse_util.flatten_dict(self.params)
    return self.replace(
        params=traverse_util.unflatten_dict(
            {path: flat[path] for path in trainable}),
        frozen=traverse_util.unflatten_dict(
            {path: leaf for path, leaf in flat.items()
             if path not in trainable}))


@dataclasses.dataclass(frozen=True)
class Task:
  """One objective on the rows of one stream.

  Attributes:
    name: key of its batch, and first part of its metrics' names.
    loss: loss(model, batch, key) -> (Mean, dict[str, Mean]).
    weight: factor of its mean in the sum of the losses.
    schedule: from the number of past updates to a factor of the weight.
    noise: of adversarial steps; None = there are none.
  """
  name: str
  loss: Callable[[nn.Module, batch_lib.Batch, jax.Array],
                 tuple[Mean, Metrics]]
  weight: float = 1.0
  schedule: optax.Schedule | None = None
  noise: adversary.Settings | None = None

  def weight_at(self, step: Any) -> Any:
    """Returns the weight after so many updates."""
    return self.weight * (self.schedule(step) if self.schedule else 1.0)


def create_state(params: Any, *, tx: optax.GradientTransformation,
                 rate_factors: optimizer.RateFactors = ()) -> TrainState:
  """Returns the state before the first update."""
  trainable, frozen = optimizer.split(params, rate_factors)
  return TrainState(step=jnp.zeros((), jnp.int32), params=trainable,
                    frozen=frozen, opt_state=tx.init(trainable))


def train_step(state: TrainState, batches: Mapping[str, batch_lib.Batch],
               key: jax.Array, *, model: nn.Module, tasks: Sequence[Task],
               tx: optax.GradientTransformation, accumulation_steps: int = 1,
               specs: Any = None) -> tuple[TrainState, Metrics]:
  """Returns the state after one update, and 'task/metric' -> Mean.

  Where the loss or the gradient is not finite, only the step is another.

  Args:
    state: before the update.
    batches: each task's rows, by its name.
    key: of the run; the step is folded in here, so that a step can be
      replayed from seed and number.
    model: unbound M3P.
    tasks: their order decides their random keys.
    tx: the optimizer of `state.params`.
    accumulation_steps: parts that the rows are worked on in, one after the
      other.
    specs: how trainable and frozen parameters are split; None = whole.
  """
  key = jax.random.fold_in(key, state.step)
  if specs is None:
    specs = jax.tree.map(
        lambda x: P(*[None] * x.ndim), (state.params, state.frozen))
  (big, small), (frozen, fixed) = map(
      shares.split, (state.params, state.frozen))
  (specs, _), (frozen_specs, _) = map(shares.split, specs)
  zeros, dtype = (small, shares.zeros(big, specs)), model.options.dtype
  fixed = optimizer.merge(
      fixed, shares.gather(frozen, frozen_specs, dtype))
  big = shares.gather(big, specs, dtype)
  gradient, metrics = jax.tree.map(jnp.zeros_like, zeros), {}
  loss = jnp.zeros(())
  for index, task in enumerate(tasks):
    part, found = _task_gradient(
        zeros, optimizer.merge(big, fixed), batches[task.name],
        jax.random.fold_in(key, index), model=model, task=task,
        parts=accumulation_steps)
    scale = Mean(jnp.float32(task.weight_at(state.step)),
                 found['loss'].weight).compute()
    gradient = optax.tree.add_scale(gradient, scale, part)
    # One task after the other: else all keep what their backward passes need.
    gradient, big = jax.lax.optimization_barrier((gradient, big))
    loss += task.weight_at(state.step) * found['loss'].compute()
    metrics |= {f'{task.name}/{name}': mean for name, mean in found.items()}
  gradient = optimizer.merge(gradient[0], shares.total(
      gradient[1], specs, dtype))
  one, norm = jnp.ones(()), optax.tree.norm(gradient)
  metrics |= {'train/loss': Mean(loss, one),
              'train/gradient_norm': Mean(norm, one)}

  updates, opt_state = tx.update(gradient, state.opt_state, state.params)
  # What is not finite would stay so for ever: such an update is left out. No
  # `cond`: collectives in its branch and beside it have no order of their own.
  params, opt_state = jax.tree.map(
      functools.partial(jnp.where, jnp.isfinite(loss) & jnp.isfinite(norm)),
      (optax.apply_updates(state.params, updates), opt_state),
      (state.params, state.opt_state))
  return state.replace(
      step=state.step + 1, params=params, opt_state=opt_state), metrics


def _task_gradient(learned: tuple[Any, Any], fixed: Any,
                   batch: batch_lib.Batch, key: jax.Array, *,
                   model: nn.Module, task: Task, parts: int):
  """Returns (gradient of the loss's total, metrics) of one task.

  By `learned`: small parameters, and shares of big ones, which are in `fixed`.
  Totals and weights of the parts are added up, and divided once: a mean of
  means would count a part with few masked words as much as one with many.
  Each part draws its own masks, wrong pairs and dropout, and sees its own rows
  alone: they are the negatives of its contrastive loss.
  """

  def total(learned, batch, key):
    small, zeros = learned
    metrics = _task_metrics(
        {'params': optimizer.merge(small, fixed), shares.SHARES: zeros}, batch,
        key, model=model, task=task, with_dropout=True)
    return metrics['loss'].total, metrics

  gradient = (adversary.gradient(total, task.noise) if task.noise
              else jax.grad(total, has_aux=True))
  if parts == 1:
    return gradient(learned, batch, key)
  # Part i has the rows i, i + parts, ...: every device gives to every part.
  split = jax.tree.map(lambda x: jnp.moveaxis(
      x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

  def add(sums, part):
    return jax.tree.map(jnp.add, sums, gradient(learned, *part)), None

  xs = split, jax.random.split(key, parts)
  zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(
          gradient, learned, *jax.tree.map(lambda x: x[0], xs)))
  return jax.lax.scan(add, zeros, xs)[0]


def _task_metrics(variables, batch, key, *, model, task, with_dropout):
  """Returns {metric: Mean} of a task, its loss among them."""
  loss_key, dropout_key = jax.random.split(key)
  with nn.intercept_methods(shares.check_reader):
    mean, metrics = nn.apply(
        lambda module: task.loss(module, batch, loss_key), model)(
            variables, rngs={'dropout': dropout_key} if with_dropout else {})
  return {'loss': mean} | metrics


def eval_step(params: Any, batches: Mapping[str, batch_lib.Batch],
              key: jax.Array, *, model: nn.Module, tasks: Sequence[Task],
              with_dropout: bool = False) -> Metrics:
  """Returns 'task/metric' -> Mean of the whole tree `params`.

  With dropout, and what else only training does, where that is asked for.
  """
  return {
      f'{task.name}/{name}': mean for index, task in enumerate(tasks)
      for name, mean in _task_metrics(
          {'params': params}, batches[task.name],
          jax.random.fold_in(key, index), model=model, task=task,
          with_dropout=with_dropout).items()}


def jit(state: TrainState, mesh: Mesh, **step):
  """Returns the jitted train step, its state donated.

  Args:
    state: abstract, with shardings.
    mesh: of the rows.
    **step: keywords of `train_step`.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  whole = sharding.replicated(mesh)
  return jax.jit(
      functools.partial(train_step, **step, specs=jax.tree.map(
          lambda leaf: leaf.spec, (shardings.params, shardings.frozen))),
      in_shardings=(shardings, sharding.of_rows(mesh), whole),
      out_shardings=(shardings, whole), donate_argnums=0)
