"""Compiles a step while the data and the first parameters are made ready."""

from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
from jax.sharding import Mesh

from m3p_jax import allocator
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax import train_step
from m3p_jax.model import m3p
from m3p_jax.training import task_programs


class Compiled:
  """A jitted function, compiled once: in a thread, for shapes known before.

  The compiler, or the cache that it reads from, leaves Python alone meanwhile.
  What compiling has freed is given back before anything is computed: in a heap
  that is kept, those gigabytes would lie beside the step's own for ever.
  """

  def __init__(self, function: Any, *args: Any):
    """Traces now, and begins to compile.

    Args:
      function: of `jax.jit`, or a `task_programs.Step`.
      *args: arrays, or `jax.ShapeDtypeStruct`s with shardings.
    """
    with allocator.collecting_later():
      lowered = function.lower(*args)
    executor = futures.ThreadPoolExecutor(1, 'compile')
    self._future = executor.submit(lowered.compile)
    executor.shutdown(wait=False)
    self._program: Any = None
    self._runs = 0

  def wait(self) -> Any:
    """Returns the program once it is compiled; raises what went wrong."""
    if self._program is None:
      self._program = self._future.result()
      allocator.give_back()
    return self._program

  def __call__(self, *args: Any) -> Any:
    """Returns the function's value."""
    program = self.wait()
    self._runs += 1
    if self._runs == 2:
      # What the first run left for ever (the libraries' own buffers) may lie
      # above the block that it worked in, and this run's arguments in it: then
      # this run takes another block, and the kept heap would hold both.
      allocator.give_back()
    return program(*args)


def begin_step(state: train_step.TrainState, mesh: Mesh,
               rows: Mapping[str, batch_lib.Batch], key: jax.Array, *,
               model: m3p.M3P, accumulation_steps: int = 1,
               **step: Any) -> Compiled:
  """Returns the train step, traced and being compiled.

  Args:
    state: abstract, with shardings.
    mesh: of the rows.
    rows: this host's; their shapes and types alone are read.
    key: of the run.
    model: unbound M3P.
    accumulation_steps: parts that the rows are worked on in.
    **step: the other keywords of `train_step.train_step`.
  """
  is_divided = accumulation_steps == 1 and model.config.unroll > 1
  function = (
      task_programs.Step(state, mesh, model=model, **step) if is_divided
      else train_step.jit(state, mesh, model=model,
                          accumulation_steps=accumulation_steps, **step))
  with jax.set_mesh(mesh):
    return Compiled(function, state, sharding.abstract_rows(mesh, rows), key)
