"""The train step as several programs: for a CPU whose layers are no loop.

To load a compiled program, XLA's CPU compiler looks for each of its products
through all of its instructions: a program of half the size is there in a
quarter of the time. So the tasks of each loss have a program of their own, and
so has the update. The tasks of one loss stay together because they read the
same tables, which are rounded once a program.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import Mesh
import optax

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax import train_step

Task = train_step.Task


class Step:
  """The programs of a train step, not traced yet."""

  def __init__(self, state: train_step.TrainState, mesh: Mesh, *,
               model: nn.Module, tasks: Sequence[Task],
               tx: optax.GradientTransformation):
    """Traces nothing yet.

    Args:
      state: abstract, with shardings.
      mesh: of the rows.
      model: unbound M3P.
      tasks: their order decides their random keys.
      tx: the optimizer of `state.params`.
    """
    self._shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    self._whole = sharding.replicated(mesh)
    self._groups = _by_loss(tasks)
    self._gradients = [
        self._jit_gradients(mesh, model, group, is_first=not place)
        for place, group in enumerate(self._groups)]
    self._update = jax.jit(
        functools.partial(train_step.update, tx=tx),
        in_shardings=(self._shardings, self._of_found()),
        out_shardings=(self._shardings, self._whole), donate_argnums=0)

  def _of_found(self):
    """Returns the shardings of ((loss, metrics), gradients)."""
    return self._whole, self._shardings.params

  def _jit_gradients(self, mesh, model, tasks, *, is_first: bool):
    return jax.jit(
        functools.partial(
            train_step.gradients_in_turn, model=model, tasks=tasks),
        in_shardings=(_readable(self._shardings), sharding.of_rows(mesh),
                      self._whole, None if is_first else self._of_found()),
        out_shardings=self._of_found(), donate_argnums=3)

  def lower(self, state: train_step.TrainState,
            rows: Mapping[str, batch_lib.Batch], key: jax.Array) -> '_Lowered':
    """Returns the traced programs, as a jitted function's `lower` does.

    Args:
      state: arrays, or shapes.
      rows: each task's, by its name; arrays, or shapes.
      key: of the run.
    """
    lowered, found = [], None
    for tasks, gradients in zip(self._groups, self._gradients, strict=True):
      traced = gradients.trace(
          _readable(state), _rows_of(rows, tasks), key, found)
      lowered.append(traced.lower())
      found = jax.tree.map(
          lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
          traced.out_info)
    return _Lowered(self._groups, lowered, self._update.lower(state, found))


class _Lowered:
  """The programs of a train step, traced."""

  def __init__(self, groups, gradients, update):
    self._groups, self._gradients, self._update = groups, gradients, update

  def compile(self):
    """Returns the step: (state, rows, key) → (state, metrics)."""
    gradients = [lowered.compile() for lowered in self._gradients]
    update = self._update.compile()

    def step(state, rows, key):
      found = None
      for tasks, program in zip(self._groups, gradients, strict=True):
        found = sharding.settle(
            program(_readable(state), _rows_of(rows, tasks), key, found))
      return update(state, found)

    return step


def _by_loss(tasks: Sequence[Task]) -> list[dict[int, Task]]:
  """Returns the tasks by their numbers, those of one loss together."""
  groups: dict[Any, dict[int, Task]] = {}
  for number, task in enumerate(tasks):
    # The loss itself, without the options of the config.
    loss = getattr(task.loss, 'func', task.loss)
    groups.setdefault(loss, {})[number] = task
  return list(groups.values())


def _rows_of(rows: Mapping[str, Any], tasks: Mapping[int, Task]):
  return {task.name: rows[task.name] for task in tasks.values()}


def _readable(state: train_step.TrainState) -> train_step.TrainState:
  """Returns what gradients are made from: a state without moments."""
  return state.replace(opt_state=None)
