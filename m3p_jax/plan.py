"""`--mode=plan`: does a training step fit, and how fast can it be?

Compiles the configured step for a TPU that need not be there, and reads what
the compiler says of memory, and the compiled program itself for operations
and bytes (see planning/).
"""

import dataclasses
import json
import math
import pathlib
import re
from typing import Any

from absl import logging
import jax
import ml_collections

from input_pipeline import errors
from m3p_jax import config as config_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax.planning import compiled_cost
from m3p_jax.planning import plan_step
from m3p_jax.planning import topology as topology_lib

ConfigDict = ml_collections.ConfigDict
# The largest and the smallest batch of a search differ by less than this.
_SEARCH_PRECISION = 0.05


@dataclasses.dataclass(frozen=True)
class Plan:
  """What one step takes: the keys of plan.json.

  Attributes: bytes and operations are of one chip and one step.
  """
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

  Args:
    config: as `configs/base.py`; `config.plan` says for what.
    workdir: gets plan.json.

  Raises:
    UserError: a config, topology or mesh that cannot be meant, or no libtpu.
  """
  config = config.copy_and_resolve_references()
  config_lib.check(config)
  if config.plan.search:
    found = _search(config)
  else:
    found = _plan(config)
  workdir = pathlib.Path(workdir)
  output.check_writable(workdir, '--workdir')
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / 'plan.json'
  draft = path.with_suffix('.tmp')
  content = dataclasses.asdict(found)
  draft.write_text(json.dumps(content, indent=2) + '\n')
  draft.replace(path)
  print(_table(found))
  return content


def _plan(config: ConfigDict) -> Plan:
  """Returns the plan of one config."""
  name = config.plan.topology
  devices, chip = topology_lib.devices(name)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model, devices)
  step = plan_step.PlannedStep(config, mesh, devices[0].platform)
  logging.info('compiling %d rows for %s, mesh %s: a minute or more',
               step.rows, name or devices[0].device_kind, dict(mesh.shape))
  memory: dict[str, float | None] = {'parameters': step.parameter_bytes,
                              'optimizer': step.optimizer_bytes}
  limit = chip.memory_bytes if chip else None
  common = dict(topology=name or devices[0].device_kind, chips=mesh.size,
                mesh=dict(mesh.shape), rows_per_step=step.rows,
                parameters=step.parameters)
  try:
    compiled = step.compile()
  except jax.errors.JaxRuntimeError as error:
    used = _used_bytes(str(error))
    if used is None:
      raise
    return Plan(**common, fits=False, bytes_per_chip=memory | {
        'total': used, 'limit': limit})
  analysis = compiled.memory_analysis()
  memory |= {
      'arguments': analysis.argument_size_in_bytes,
      'temporaries': analysis.temp_size_in_bytes,
      'output': (analysis.output_size_in_bytes
                 - analysis.alias_size_in_bytes)}
  memory['total'] = sum(memory[key] for key in (
      'arguments', 'temporaries', 'output'))
  memory['limit'] = limit
  cost = compiled_cost.count(compiled.as_text())
  costs: dict[str, Any] = dict(
      flops_per_chip=cost.flops, traced_flops_per_chip=step.traced_flops(),
      model_flops_per_chip=step.model_flops(),
      bytes_accessed_per_chip=cost.hbm_bytes,
      bytes_accessed_with_core_memory_per_chip=cost.bytes)
  if chip:
    seconds = max(cost.flops / chip.peak_flops,
                  cost.hbm_bytes / chip.bandwidth)
    costs |= dict(
        roofline_step_seconds=seconds, rows_per_second=step.rows / seconds,
        utilisation_bound=(costs['model_flops_per_chip']
                           / (chip.peak_flops * seconds)))
  fits = limit is None or memory['total'] <= limit
  return Plan(**common, bytes_per_chip=memory, fits=fits, **costs)


def _search(config: ConfigDict) -> Plan:
  """Returns the plan of the largest batch that fits.

  Memory is near to linear in the rows: the next guess comes from the line
  through the last two plans.

  Raises:
    UserError: not even one row a device and task fits.
  """
  best, too_many = None, math.inf
  plans: list[Plan] = []
  scale = 1.0
  devices, chip = topology_lib.devices(config.plan.topology)
  if chip is None:
    raise errors.UserError(
        f'plan.search: the memory of {devices[0].device_kind} is not known; '
        "set plan.topology, such as 'v5e:2x4'")
  data = sharding.make_mesh(
      config.mesh.data, config.mesh.model, devices).shape['data']
  while True:
    found = _plan(plan_step.scaled(config, scale, data))
    logging.info('%d rows: %s of %s', found.rows_per_step,
                 _gb(found.bytes_per_chip['total']),
                 _gb(found.bytes_per_chip['limit']))
    if found.fits and (best is None
                       or found.rows_per_step > best.rows_per_step):
      best = found
    if not found.fits:
      too_many = min(too_many, found.rows_per_step)
    plans.append(found)
    rows = plan_step.next_guess(
        [(p.rows_per_step, p.bytes_per_chip['total']) for p in plans[-2:]],
        limit=found.bytes_per_chip['limit'], too_many=too_many,
        at_least=best.rows_per_step if best else 0)
    scale *= rows / found.rows_per_step
    tried = plan_step.scaled(config, scale, data)
    rows = plan_step.count_rows(tried)
    if any(p.rows_per_step == rows for p in plans) or (
        best and too_many < best.rows_per_step * (1 + _SEARCH_PRECISION)):
      if best is None:
        raise errors.UserError(
            f'not even {rows} rows a step fit {found.topology}: '
            f'{_advice(found)}')
      return best


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
  for label, value, unit in (
      ('operations', found.flops_per_chip, 1e12),
      ('  of the model', found.model_flops_per_chip, 1e12),
      ('bytes moved', found.bytes_accessed_per_chip, 1e9)):
    if value is not None:
      name = 'T' if unit == 1e12 else 'GB'
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
          "model.remat='input'; or take more chips (mesh.data splits the "
          f'state: {_gb(memory["parameters"] + memory["optimizer"])} here)')


def _gb(size: float) -> str:
  return f'{size / 2**30:.2f} GiB'
