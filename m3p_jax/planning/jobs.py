"""The programs of a job, on abstract arrays: compiled and never run.

Letters: B rows, R regions, L text length.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import ml_collections
import numpy as np

from input_pipeline import streams
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train_step
from m3p_jax.evaluation import engine
from m3p_jax.evaluation import exact
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.planning import hlo_cost

ConfigDict = ml_collections.ConfigDict


class Program:
  """A jitted function on abstract arguments."""

  def __init__(self, function, arguments: Sequence[Any], devices: int, *,
               mesh: Mesh | None = None, per_step: float = 1.0,
               forward: Callable[[], Any] | None = None):
    """Remembers what to trace when it is asked for.

    Args:
      function: jitted.
      arguments: its abstract arguments.
      devices: that share its operations.
      mesh: that is set while it runs; None = none.
      per_step: how often a step of its job runs it.
      forward: returns the jaxpr whose products, three times, are the model's;
        None = its own are, once.
    """
    self._function, self.arguments = function, arguments
    self._devices, self._mesh = devices, mesh
    self.per_step, self._forward = per_step, forward

  @functools.cached_property
  def _traced(self):
    with self._set_mesh():
      return self._function.trace(*self.arguments)

  def _set_mesh(self):
    return jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext()

  def compile(self, platform: str) -> Any:
    """Returns the compiled program."""
    with self._set_mesh():
      return self._traced.lower(lowering_platforms=(platform,)).compile()

  def traced_flops(self) -> float:
    """Returns the operations of one device's matrix products, as traced."""
    return self._share(self._traced.jaxpr)

  def model_flops(self) -> float:
    """Returns one device's share of the model's matrix products.

    Heads at predicted positions, nothing rematerialised; the word table with
    its padding to whole blocks, 0.1 % of XLM-R's.
    """
    if self._forward is None:
      return self.traced_flops()
    return 3 * self._share(self._forward())

  def _share(self, jaxpr) -> float:
    return hlo_cost.traced_flops(
        jaxpr, devices=self._devices) / self._devices


class Job(NamedTuple):
  """What is done over and over.

  Attributes:
    mesh: of the devices that a program runs on.
    programs: of a step.
    rows: of a step, those of all hosts.
    steps: in all.
    params: abstract parameters, and
    opt_state: the optimizer's state.
  """
  mesh: Mesh
  programs: list[Program]
  rows: int
  steps: float
  params: Any
  opt_state: Any = ()


def train(config: ConfigDict, mesh: Mesh) -> Job:
  """Returns training, a step of which is one update."""
  for name, task in config.tasks.items():
    sharding.check_batch_size(mesh, name, task.batch_size,
                              config.accumulation_steps)
  geometry = startup.model_config(config)
  tasks = startup.make_tasks(config.tasks)
  _, tx = startup.make_optimizer(config)
  state, _ = startup.abstract_state(
      geometry, mesh=mesh, tx=tx, rate_factors=config.optimizer.rate_factors)
  batches = _batches(config, geometry, sharding.of_rows(mesh))
  key = jax.eval_shape(lambda: jax.random.key(0))
  step = train_step.jit(
      state, mesh, model=m3p.M3P(geometry, startup.model_options(
          config, mesh.devices.flat[0].platform)),
      tasks=tasks, tx=tx, accumulation_steps=config.accumulation_steps)

  def forward(*args):
    # Noise of adversarial steps is climbed by forward and backward passes.
    return [train_step.eval_step(
        *args, model=m3p.M3P(geometry), tasks=(task,), with_dropout=True)
            for task in tasks
            for _ in range(task.noise.steps if task.noise else 1)]

  program = Program(
      step, (state, batches, jax.ShapeDtypeStruct(
          key.shape, key.dtype, sharding=sharding.replicated(mesh))),
      mesh.size, mesh=mesh, forward=lambda: jax.make_jaxpr(forward)(
          state.all_params(), batches, jax.random.key(0)))
  return Job(mesh, [program], count_rows(config), config.num_train_steps,
             (state.params, state.frozen), state.opt_state)


def score(config: ConfigDict, devices: Sequence[jax.Device]) -> Job:
  """Returns the exact engine's scores of every pair."""
  passes = _Passes(config, devices)
  pictures, captions = config.plan.pictures, config.plan.captions
  # As many pictures as a piece has are on the devices at once.
  piece = max(1, max(exact.PAIRS_PER_PIECE, pictures * captions
                     // exact.MOST_PIECES) // captions)
  image_B, token_ids_BL, mask_BL, _ = passes.texts()
  program = passes.program('match', passes.regions(piece, whole=True),
                           startup.model_config(config).text_start(
                               config.plan.num_regions),
                           (image_B, token_ids_BL, mask_BL))
  return passes.job([program], pictures * captions)


def index(config: ConfigDict, devices: Sequence[jax.Device]) -> Job:
  """Returns the dual encoder's vectors of pictures and their captions."""
  passes = _Passes(config, devices)
  _, token_ids_BL, mask_BL, language_B = passes.texts()
  each = config.plan.captions / config.plan.pictures
  return passes.job(
      [passes.program('embed_images', passes.regions(passes.rows)),
       passes.program('embed_texts', (token_ids_BL, mask_BL, language_B),
                      per_step=each)],
      config.plan.pictures, rows_per_step=1 + each)


class _Passes:
  """Forward passes as `engine.Engine` makes them on the devices of a host."""

  def __init__(self, config: ConfigDict, devices: Sequence[jax.Device]):
    hosts = {device.process_index for device in devices}
    self._hosts = len(hosts)
    self._mesh = Mesh(np.array([
        device for device in devices
        if device.process_index == min(hosts)]), ('data',))
    self._config, self._geometry = config, startup.model_config(config)
    local = self._mesh.size
    self.rows = -(-config.evaluation.batch_size // local) * local
    self._split = NamedSharding(self._mesh, P('data'))
    self._whole = NamedSharding(self._mesh, P())
    self._params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=self._whole),
        nn.unbox(m3p.abstract_params(self._geometry)))
    dtype = model_config_lib.number_format(
        config.model.dtype, devices[0].platform)
    self._functions = engine.functions(
        self._geometry, model_config_lib.Options(dtype=dtype))

  def regions(self, count: int, *, whole: bool = False) -> batch_lib.Regions:
    """Returns abstract pictures, split over the devices or whole on each."""
    return _regions(self._config, self._geometry, count,
                    self._whole if whole else self._split)

  def texts(self) -> tuple[Any, ...]:
    """Returns a number, ids, mask and language of each row."""
    length = (self._config.evaluation.max_length
              or self._config.data.image_text.max_length)
    return tuple(jax.ShapeDtypeStruct(shape, dtype, sharding=self._split)
                 for shape, dtype in (
                     ((self.rows,), jnp.int32),
                     ((self.rows, length), jnp.int32),
                     ((self.rows, length), jnp.bool_),
                     ((self.rows,), jnp.int32)))

  def program(self, name: str, *arguments: Any,
              per_step: float = 1.0) -> Program:
    return Program(getattr(self._functions, name), (self._params, *arguments),
                   self._mesh.size, per_step=per_step)

  def job(self, programs: list[Program], count: int,
          rows_per_step: float = 1.0) -> Job:
    """Returns the job of so many first rows, which all hosts share out."""
    rows = self.rows * self._hosts
    return Job(self._mesh, programs, round(rows * rows_per_step), count / rows,
               self._params)


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


def scaled(config: ConfigDict, scale: float, parts: int) -> ConfigDict:
  """Returns the config with every batch this much larger.

  Batches stay multiples of `parts`, those that rows are split into.
  """
  config = config.copy_and_resolve_references()

  def times(size, step):
    return max(step, round(size * scale / step) * step)

  if config.plan.job != 'train':
    config.evaluation.batch_size = times(config.evaluation.batch_size, parts)
  for task in config.tasks.values():
    task.batch_size = times(task.batch_size, parts * config.accumulation_steps)
  return config


def device_bytes(tree: Any) -> int:
  """Returns the bytes of abstract arrays that one device holds."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape))
             * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _regions(config, geometry, count: int, split) -> batch_lib.Regions:
  shape = (count, config.plan.num_regions)

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

  return batch_lib.Regions(
      image_id_B=array(jnp.int32, count),
      features_BRF=array(jnp.float16, *shape, geometry.region_feature_dim),
      boxes_BRG=array(jnp.float32, *shape, 5),
      class_ids_BR=array(jnp.int32, *shape),
      mask_BR=array(jnp.bool_, *shape))


def _batches(config, geometry: model_config_lib.ModelConfig, split):
  """Returns {task: abstract Batch}."""
  batches = {}
  for name, task in config.tasks.items():
    shape = (task.batch_size,
             streams.data_of(config.data, task).max_length)
    ids, mask, row = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=split)
        for shape, dtype in ((shape, jnp.int32), (shape, jnp.bool_),
                             (shape[:1], jnp.int32)))
    pictures = [
        _regions(config, geometry, task.batch_size, split)
        for _ in range(streams.num_pictures(task))]
    extra: dict[str, Any] = {}
    if task.stream == 'parallel':
      extra = {'source_ids_BL': ids, 'source_mask_BL': mask,
               'source_language_B': row}
    elif task.stream in ('labelled', 'pair'):
      extra = {'label_B': row} | (
          {'second': pictures[1]} if task.stream == 'pair' else {})
    batches[name] = batch_lib.Batch(
        ids, mask, row, pictures[0] if pictures else None, extra)
  return batches
