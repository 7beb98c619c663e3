"""`--mode=plan`: does a training step fit, and how fast can it be?

Compiles the configured step, on abstract arrays, for a TPU that need not be
there; reads what the compiler says of memory, and counts the compiled program's
operations and bytes.

Letters: B rows, R regions.
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import math
import pathlib
import re
from typing import Any

from absl import logging
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import batch as batch_lib
from m3p_jax import config as config_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.planning import chips
from m3p_jax.planning import hlo_cost

ConfigDict = ml_collections.ConfigDict
# The largest and the smallest batch of a search differ by less than this.
_SEARCH_PRECISION = 0.05


@dataclasses.dataclass(frozen=True)
class Plan:
  """The keys of plan.json; bytes and operations are of one chip and step."""
  topology: str
  chips: int
  mesh: dict[str, int]
  rows_per_step: int
  parameters: int
  bytes_per_chip: dict[str, float | None]
  flops_per_chip: float | None = None
  traced_flops_per_chip: float | None = None
  model_flops_per_chip: float | None = None
  bytes_accessed_per_chip: float | None = None
  bytes_accessed_with_core_memory_per_chip: float | None = None
  roofline_step_seconds: float | None = None
  rows_per_second: float | None = None
  utilisation_bound: float | None = None
  fits: bool = True


def plan(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Writes plan.json, prints it as a table, and returns it.

  Raises:
    UserError: a config, topology or mesh that cannot be meant, or no libtpu.
  """
  config = config.copy_and_resolve_references()
  config_lib.check(config)
  found = _search(config) if config.plan.search else _plan(config)
  workdir = paths.of(workdir)
  output.check_writable(workdir, '--workdir')
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / 'plan.json'
  draft = path.with_suffix('.tmp')
  content = dataclasses.asdict(found)
  draft.write_text(json.dumps(content, indent=2) + '\n')
  draft.replace(path)
  print(_table(found))
  return content


def peak_seconds(config: ConfigDict, mesh: Mesh) -> float | None:
  """Returns the seconds of a step's model operations at the mesh's peak.

  None where the devices' peak is not known.
  """
  device = mesh.devices.flat[0]
  chip = chips.of_device(device.device_kind)
  if chip is None:
    return None
  return _Step(config, mesh, device.platform).model_flops() / chip.peak_flops


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
  step = parts * config.accumulation_steps
  for task in config.tasks.values():
    task.batch_size = max(step, round(task.batch_size * scale / step) * step)
  return config


class _Step:
  """The train step of a config on abstract arrays, compiled and never run."""

  def __init__(self, config: ConfigDict, mesh: Mesh, platform: str):
    for name, task in config.tasks.items():
      sharding.check_batch_size(mesh, name, task.batch_size,
                                config.accumulation_steps)
    self._mesh, self._platform = mesh, platform
    self._config = startup.model_config(config)
    self._options = startup.model_options(config, platform)
    self._tasks = startup.make_tasks(config.tasks)
    _, self._tx = startup.make_optimizer(config)
    self.state, _ = startup.abstract_state(
        self._config, mesh=mesh, tx=self._tx,
        rate_factors=config.optimizer.rate_factors)
    self._batches = _batches(config, self._config, sharding.of_rows(mesh))
    self._accumulation_steps = config.accumulation_steps

  @functools.cached_property
  def _traced(self):
    step = train_step.jit(
        self.state, self._mesh, model=m3p.M3P(self._config, self._options),
        tasks=self._tasks, tx=self._tx,
        accumulation_steps=self._accumulation_steps)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(self._mesh):
      return step.trace(self.state, self._batches, jax.ShapeDtypeStruct(
          key.shape, key.dtype, sharding=sharding.replicated(self._mesh)))

  def compile(self):
    """Returns the compiled step."""
    with jax.set_mesh(self._mesh):
      return self._traced.lower(
          lowering_platforms=(self._platform,)).compile()

  def traced_flops(self) -> float:
    """Returns the operations of one device's matrix products, as traced."""
    return hlo_cost.traced_flops(
        self._traced.jaxpr, devices=self._mesh.size) / self._mesh.size

  def model_flops(self) -> float:
    """Returns one device's share of 3 x the forward matrix products.

    Heads at predicted positions, nothing rematerialised; the word table with
    its padding to whole blocks, 0.1 % of XLM-R's.
    """
    forward = jax.make_jaxpr(functools.partial(
        train_step.eval_step, model=m3p.M3P(self._config), tasks=self._tasks))(
            self.state.all_params(), self._batches, jax.random.key(0))
    return 3 / self._mesh.size * hlo_cost.traced_flops(
        forward, devices=self._mesh.size)


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


def _plan(config: ConfigDict) -> Plan:
  """Returns the plan of one config."""
  devices, chip = chips.devices(config.plan.topology)
  topology = config.plan.topology or devices[0].device_kind
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  step, rows = _Step(config, mesh, devices[0].platform), count_rows(config)
  logging.info('compiling %d rows for %s, mesh %s: a minute or more',
               rows, topology, dict(mesh.shape))
  params = step.state.params, step.state.frozen
  memory: dict[str, float | None] = {
      'parameters': _device_bytes(params),
      'optimizer': _device_bytes(step.state.opt_state)}
  limit = chip.memory_bytes if chip else None
  common = dict(topology=topology, chips=mesh.size, mesh=dict(mesh.shape),
                rows_per_step=rows, parameters=sum(
                    math.prod(leaf.shape) for leaf in jax.tree.leaves(params)))
  try:
    compiled = step.compile()
  except jax.errors.JaxRuntimeError as error:
    used = _used_bytes(str(error))
    if used is None:
      raise
    return Plan(**common, fits=False, bytes_per_chip=memory | {
        'total': used, 'limit': limit})
  analysis = compiled.memory_analysis()
  parts = {
      'arguments': analysis.argument_size_in_bytes,
      'temporaries': analysis.temp_size_in_bytes,
      'output': (analysis.output_size_in_bytes
                 - analysis.alias_size_in_bytes)}
  total = sum(parts.values())
  cost = hlo_cost.count(compiled.as_text())
  costs: dict[str, Any] = dict(
      flops_per_chip=cost.flops, traced_flops_per_chip=step.traced_flops(),
      model_flops_per_chip=step.model_flops(),
      bytes_accessed_per_chip=cost.hbm_bytes,
      bytes_accessed_with_core_memory_per_chip=cost.bytes)
  if chip:
    seconds = max(cost.flops / chip.peak_flops,
                  cost.hbm_bytes / chip.bandwidth)
    costs |= dict(
        roofline_step_seconds=seconds, rows_per_second=rows / seconds,
        utilisation_bound=(costs['model_flops_per_chip']
                           / (chip.peak_flops * seconds)))
  return Plan(
      **common, **costs, fits=limit is None or total <= limit,
      bytes_per_chip=memory | parts | {'total': total, 'limit': limit})


def _search(config: ConfigDict) -> Plan:
  """Returns the plan of the largest batch that fits.

  Raises:
    UserError: not even one row a device and task fits.
  """
  devices, chip = chips.devices(config.plan.topology)
  if chip is None:
    raise errors.UserError(
        f'plan.search: the memory of {devices[0].device_kind} is not known; '
        "set plan.topology, such as 'v5e:2x4'")
  parts = sharding.num_parts(
      sharding.make_mesh(**config.mesh, devices=devices), 'batch')
  plans: list[Plan] = []
  scale = 1.0
  while True:
    found = _plan(scaled(config, scale, parts))
    plans.append(found)
    logging.info('%d rows: %s of %s', found.rows_per_step,
                 _gb(found.bytes_per_chip['total']),
                 _gb(found.bytes_per_chip['limit']))
    best = max((one for one in plans if one.fits), default=None,
               key=lambda one: one.rows_per_step)
    at_least = best.rows_per_step if best else 0
    too_many = min((one.rows_per_step for one in plans if not one.fits),
                   default=math.inf)
    scale *= _next_guess(plans[-2:], too_many=too_many,
                         at_least=at_least) / found.rows_per_step
    rows = count_rows(scaled(config, scale, parts))
    if (any(one.rows_per_step == rows for one in plans)
        or too_many < at_least * (1 + _SEARCH_PRECISION)):
      if best:
        return best
      raise errors.UserError(
          f'not even {rows} rows a step fit {found.topology}: '
          f'{_advice(found)}')


def _next_guess(plans: Sequence[Plan], *, too_many: float,
                at_least: int) -> int:
  """Returns how many rows to try next, from the last one or two plans.

  `too_many` rows are known not to fit, `at_least` to fit.
  """
  (before, used_before), (rows, used) = (
      (p.rows_per_step, p.bytes_per_chip['total'])
      for p in (plans[0], plans[-1]))
  limit = plans[-1].bytes_per_chip['limit']
  if rows != before and used != used_before:
    # Memory is near to linear in the rows: a little less than the line says.
    slope = (used - used_before) / (rows - before)
    guess = rows + 0.98 * (limit - used) / slope
  else:
    guess = rows * (2 if used < limit else 0.5)
  if guess >= too_many or guess <= at_least:
    # No line: halfway between what fits and what does not.
    guess = (at_least + too_many) / 2 if too_many < math.inf else 2 * at_least
  return max(1, int(guess))


def _used_bytes(message: str) -> float | None:
  """Returns the memory that the compiler says it would need; None = other."""
  found = re.search(r'Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])', message)
  if not found:
    return None
  return float(found[1]) * 2 ** (10 * (1 + 'KMGT'.index(found[2])))


def _table(found: Plan) -> str:
  """Returns the plan as lines to read."""
  memory = found.bytes_per_chip
  lines = [f'{found.topology}: {found.chips} chips, mesh {found.mesh}',
           f'rows a step         {found.rows_per_step:,}',
           f'parameters          {found.parameters:,}']
  lines += [f'{name + " a chip":<20}{_gb(memory[name])}' for name in (
      'parameters', 'optimizer', 'arguments', 'temporaries', 'output',
      'total', 'limit') if memory.get(name) is not None]
  for label, value, unit, name in (
      ('operations', found.flops_per_chip, 1e12, 'T'),
      ('  of the model', found.model_flops_per_chip, 1e12, 'T'),
      ('bytes moved', found.bytes_accessed_per_chip, 1e9, 'GB')):
    if value is not None:
      lines.append(f'{label:<20}{value / unit:,.2f} {name} a chip and step')
  if found.utilisation_bound is not None:
    lines += [
        f'step at best        {1000 * found.roofline_step_seconds:,.1f} ms',
        f'rows a second       {found.rows_per_second:,.0f} at best',
        f'utilisation         {found.utilisation_bound:.3f} at best']
  lines.append('fits' if found.fits else f'does not fit: {_advice(found)}')
  return '\n'.join(lines)


def _advice(found: Plan) -> str:
  memory = found.bytes_per_chip
  return (f'{_gb(memory["total"])} a chip are needed, '
          f'{_gb(memory["total"] - memory["limit"])} more than there are. '
          "Lower tasks.*.batch_size or raise accumulation_steps; set "
          "model.remat='input'; or take more chips (mesh.fsdp splits the "
          f'state: {_gb(memory["parameters"] + memory["optimizer"])} here)')


def _gb(size: float) -> str:
  return f'{size / 2**30:.2f} GiB'
