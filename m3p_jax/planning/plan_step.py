"""A training step that is compiled and counted, never run.

Letters: B rows, R regions.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.planning import chips
from m3p_jax.planning import matmul_flops

ConfigDict = ml_collections.ConfigDict


class PlannedStep:
  """The train step of a config on abstract arrays.

  Attributes:
    rows: encoder input sequences a step, over all devices.
    parameters: trained and frozen.
    parameter_bytes: of one device.
    optimizer_bytes: of one device.
  """

  def __init__(self, config: ConfigDict, mesh: Mesh, platform: str):
    """Traces nothing yet.

    Args:
      config: of the run.
      mesh: of the devices to compile for.
      platform: theirs: 'cpu', 'gpu' or 'tpu'.
    """
    for name, task in config.tasks.items():
      sharding.check_batch_size(mesh, name, task.batch_size,
                                config.accumulation_steps)
    self._mesh = mesh
    self._config = startup.model_config(config)
    self._platform = platform
    self._options = startup.model_options(config, platform)
    self._tasks = startup.make_tasks(config.tasks)
    _, self._tx = startup.make_optimizer(config)
    self._state, _ = startup.abstract_state(
        self._config, mesh=mesh, tx=self._tx,
        rate_factors=config.optimizer.rate_factors)
    self._batches = _batches(config, self._config, sharding.of_rows(mesh))
    self._accumulation_steps = config.accumulation_steps
    self.rows = count_rows(config)
    self.parameters = sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves((self._state.params, self._state.frozen)))
    self.parameter_bytes = _device_bytes(
        (self._state.params, self._state.frozen))
    self.optimizer_bytes = _device_bytes(self._state.opt_state)

  @functools.cached_property
  def _traced(self):
    step = train_step.jit(
        self._state, self._mesh,
        model=m3p.M3P(self._config, self._options), tasks=self._tasks,
        tx=self._tx,
        accumulation_steps=self._accumulation_steps)
    whole = sharding.replicated(self._mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(self._mesh):
      return step.trace(
          self._state, self._batches,
          jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole))

  def compile(self):
    """Returns the compiled step."""
    with jax.set_mesh(self._mesh):
      return self._traced.lower(
          lowering_platforms=(self._platform,)).compile()

  def traced_flops(self) -> float:
    """Returns the operations of one device's matrix products, as traced."""
    return matmul_flops.count(
        self._traced.jaxpr, devices=self._mesh.size) / self._mesh.size

  def model_flops(self) -> float:
    """Returns one device's share of 3 x the forward matrix products.

    Heads at predicted positions, nothing rematerialised; the word table with
    its padding to whole blocks, 0.1 % of XLM-R's.
    """
    forward = jax.make_jaxpr(functools.partial(
        train_step.eval_step, model=m3p.M3P(self._config), tasks=self._tasks))(
            self._state.all_params(), self._batches, jax.random.key(0))
    return 3 / self._mesh.size * matmul_flops.count(
        forward, devices=self._mesh.size)


def peak_seconds(config: ConfigDict, mesh: Mesh) -> float | None:
  """Returns the seconds of a step's model operations at the mesh's peak.

  None where the devices' peak is not known.
  """
  device = mesh.devices.flat[0]
  chip = chips.of_device(device.device_kind)
  if chip is None:
    return None
  step = PlannedStep(config, mesh, device.platform)
  return step.model_flops() / chip.peak_flops


def count_rows(config: ConfigDict) -> int:
  """Returns the rows that the encoder reads in a step, candidates expanded."""
  # The encoder's depth and width change nothing in their number.
  model_config = dataclasses.replace(
      startup.model_config(config), num_layers=1)
  rows = 0

  def listen(call, args, kwargs, context):
    nonlocal rows
    # What all ways into the encoder pass; JAX traces the encoder itself twice.
    if context.method_name == '_run_layers':
      rows += jax.tree.leaves(args)[0].shape[0]
    return call(*args, **kwargs)

  params = nn.unbox(m3p.abstract_params(model_config))
  with nn.intercept_methods(listen):
    jax.eval_shape(
        functools.partial(train_step.eval_step, model=m3p.M3P(model_config),
                          tasks=startup.make_tasks(config.tasks)),
        params, _batches(config, model_config, None), jax.random.key(0))
  return rows


def scaled(config: ConfigDict, scale: float, data: int) -> ConfigDict:
  """Returns the config with every batch this much larger.

  Args:
    config: of the run.
    scale: of the rows.
    data: devices along mesh axis `data`, which the rows divide by.
  """
  config = config.copy_and_resolve_references()
  for task in config.tasks.values():
    step = data * config.accumulation_steps
    task.batch_size = max(step, round(task.batch_size * scale / step) * step)
  return config


def next_guess(points: Sequence[tuple[int, float]], *, limit: float,
               too_many: float, at_least: int) -> int:
  """Returns how many rows to try next.

  Args:
    points: (rows, bytes) of the last one or two plans.
    limit: bytes that there are.
    too_many: rows known not to fit.
    at_least: rows known to fit.
  """
  (rows, used), (before, used_before) = points[-1], points[0]
  if rows != before and used != used_before:
    slope = (used - used_before) / (rows - before)
    # A little less than the line says: it is not quite one.
    guess = rows + 0.98 * (limit - used) / slope
  else:
    guess = rows * (2 if used < limit else 0.5)
  if guess >= too_many or guess <= at_least:
    # No line: halfway between what fits and what does not.
    guess = (at_least + too_many) / 2 if too_many < math.inf else 2 * at_least
  return max(1, int(guess))


def _batches(config, model_config: model_config_lib.ModelConfig, split):
  """Returns {task: abstract Batch}."""

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

  batches = {}
  for name, task in config.tasks.items():
    rows, regions = task.batch_size, None
    length = config.data[task.stream].max_length
    if task.stream == 'image_text':
      shape = (rows, config.plan.num_regions)
      regions = batch_lib.Regions(
          image_id_B=array(jnp.int32, rows),
          features_BRF=array(jnp.float16, *shape,
                             model_config.region_feature_dim),
          boxes_BRG=array(jnp.float32, *shape, 5),
          class_ids_BR=array(jnp.int32, *shape),
          mask_BR=array(jnp.bool_, *shape))
    batches[name] = batch_lib.Batch(
        token_ids_BL=array(jnp.int32, rows, length),
        text_mask_BL=array(jnp.bool_, rows, length),
        language_B=array(jnp.int32, rows), regions=regions)
  return batches


def _device_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape))
             * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
