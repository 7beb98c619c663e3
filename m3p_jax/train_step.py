"""One update: every task's loss, their weighted sum, gradients, AdamW."""

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
import optax

from m3p_jax import batch as batch_lib
from m3p_jax import metrics as metrics_lib
from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax.training import accumulation
from m3p_jax.training import in_turn

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
    prepare: prepare(batch, key) -> rows with all that the loss draws, which
      may then be split; None, or a result of None = it cannot be told apart.
    prepared_loss: prepared_loss(model, rows) -> as `loss`.
  """
  name: str
  loss: Callable[[nn.Module, batch_lib.Batch, jax.Array],
                 tuple[Mean, Metrics]]
  weight: float = 1.0
  prepare: Callable[[batch_lib.Batch, jax.Array], Any] | None = None
  prepared_loss: Callable[[nn.Module, Any], tuple[Mean, Metrics]] | None = None


def create_state(params: Any, *, tx: optax.GradientTransformation,
                 rate_factors: optimizer.RateFactors = ()) -> TrainState:
  """Returns the state before the first update."""
  trainable, frozen = optimizer.split(params, rate_factors)
  return TrainState(step=jnp.zeros((), jnp.int32), params=trainable,
                    frozen=frozen, opt_state=tx.init(trainable))


def train_step(state: TrainState, batches: Mapping[str, batch_lib.Batch],
               key: jax.Array, *, model: nn.Module, tasks: Sequence[Task],
               tx: optax.GradientTransformation, accumulation_steps: int = 1
               ) -> tuple[TrainState, Metrics]:
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
      other; see `training/accumulation.py`.
  """
  # XLA's CPU compiler would keep the activations of all tasks at once.
  if accumulation_steps == 1 and model.config.resolved_platform == 'cpu':
    return update(state, gradients_in_turn(
        state, batches, key, model=model, tasks=dict(enumerate(tasks))), tx=tx)
  key = jax.random.fold_in(key, state.step)

  def weighted_loss(trainable):
    return _weighted_loss(
        optimizer.merge(trainable, state.frozen), batches, key, model=model,
        tasks=tasks, with_dropout=True)

  if accumulation_steps > 1:
    found = accumulation.value_and_grad(
        state.params, state.frozen, batches, key, model=model, tasks=tasks,
        steps=accumulation_steps)
  else:
    found = jax.value_and_grad(weighted_loss, has_aux=True)(state.params)
  return update(state, found, tx=tx)


def gradients_in_turn(state: TrainState,
                      batches: Mapping[str, batch_lib.Batch], key: jax.Array,
                      before: Any = None, *, model: nn.Module,
                      tasks: Mapping[int, Task]):
  """Returns ((loss, metrics), gradients) of some tasks, one after the other.

  Args: as `train_step`, of the state what it needs (`opt_state` may be None),
  and
    before: what this returned for other tasks, which is added; None = nothing.
    tasks: by their numbers among all tasks.
  """
  key = jax.random.fold_in(key, state.step)

  def one_loss(trainable, batch, index, task):
    return _task_loss(
        optimizer.merge(trainable, state.frozen), batch, key, model=model,
        index=index, task=task, with_dropout=True)

  return in_turn.value_and_grad(
      one_loss, state.params, batches, tasks, is_on=state.step >= 0,
      before=before)


def update(state: TrainState, found: Any, *, tx: optax.GradientTransformation,
           ) -> tuple[TrainState, Metrics]:
  """Returns the state after an update, and the step's metrics.

  Args:
    state: before the update.
    found: ((loss, metrics of all tasks), gradients).
    tx: the optimizer of `state.params`.
  """
  (loss, metrics), gradients = found
  one, norm = jnp.ones(()), optax.tree.norm(gradients)
  metrics = metrics | {'train/loss': Mean(loss, one),
                       'train/gradient_norm': Mean(norm, one)}

  def change(params, opt_state, gradients):
    updates, opt_state = tx.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  # What is not finite would stay so for ever: such an update is left out.
  params, opt_state = jax.lax.cond(
      jnp.isfinite(loss) & jnp.isfinite(norm), change,
      lambda params, opt_state, _: (params, opt_state),
      state.params, state.opt_state, gradients)
  return state.replace(
      step=state.step + 1, params=params, opt_state=opt_state), metrics


# FSDP gathers a product's weights before it. Of itself the compiler would
# overlap gathering and product in a loop over the devices, which writes the
# float32 result once a turn: 60 GB of 160 in a step at base size.
_TPU_OPTIONS = {'xla_jf_spmd_threshold_for_windowed_einsum_mib': '1000000'}


def jit(state: TrainState, mesh: Mesh, **step):
  """Returns the jitted train step, its state donated.

  Args:
    state: abstract, with shardings.
    mesh: of the rows.
    **step: keywords of `train_step`.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  whole = sharding.replicated(mesh)
  platform = mesh.devices.flat[0].platform
  return jax.jit(
      functools.partial(train_step, **step),
      in_shardings=(shardings, sharding.of_rows(mesh), whole),
      out_shardings=(shardings, whole), donate_argnums=0,
      compiler_options=_TPU_OPTIONS if platform == 'tpu' else None)


def eval_step(params: Any, batches: Mapping[str, batch_lib.Batch],
              key: jax.Array, *, model: nn.Module, tasks: Sequence[Task]
              ) -> Metrics:
  """Returns 'task/metric' -> Mean of the whole tree `params`, no dropout."""
  return _weighted_loss(params, batches, key, model=model, tasks=tasks,
                        with_dropout=False)[1]


def _weighted_loss(params, batches, key, *, model, tasks, with_dropout):
  """Returns (Σ weight · mean, metrics of all tasks)."""
  total, metrics = jnp.zeros(()), {}
  for index, task in enumerate(tasks):
    loss, task_metrics = _task_loss(
        params, batches[task.name], key, model=model, index=index, task=task,
        with_dropout=with_dropout)
    total += loss
    metrics |= task_metrics
  return total, metrics


def _task_loss(params, batch, key, *, model, index, task, with_dropout):
  """Returns (weight · mean, metrics) of the task of this number."""
  loss_key, dropout_key = jax.random.split(jax.random.fold_in(key, index))

  def bound_loss(module):
    return task.loss(module, batch, loss_key)

  mean, metrics = nn.apply(bound_loss, model)(
      {'params': params},
      rngs={'dropout': dropout_key} if with_dropout else {})
  return task.weight * mean.compute(), {f'{task.name}/loss': mean} | {
      f'{task.name}/{name}': value for name, value in metrics.items()}
