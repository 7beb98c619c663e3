"""`--mode=plan`: does a job fit, how fast can it be, and what does it take?

Compiles the configured job's programs, on abstract arrays, for a TPU that need
not be there; reads what the compiler says of memory, and counts the compiled
programs' operations, bytes and collectives.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
import pathlib
import re
from typing import Any

from absl import logging
import jax
from jax.sharding import Mesh
import ml_collections

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import config as config_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax.planning import chips
from m3p_jax.planning import feed
from m3p_jax.planning import hlo_cost
from m3p_jax.planning import jobs
from m3p_jax.planning import links

ConfigDict = ml_collections.ConfigDict
# A search goes up to the largest batch, or to less by so much at most.
_SEARCH_PRECISION = 0.05
JOBS = ('train', 'score', 'index')


@dataclasses.dataclass(frozen=True)
class Plan:
  """The keys of plan.json; bytes and operations are of one chip and step."""
  topology: str
  chips: int
  mesh: dict[str, int]
  rows_per_step: int
  parameters: int
  bytes_per_chip: dict[str, float | None]
  job: str = 'train'
  slices: int = 1
  hosts: int = 1
  steps: float = 0
  flops_per_chip: float | None = None
  traced_flops_per_chip: float | None = None
  model_flops_per_chip: float | None = None
  bytes_accessed_per_chip: float | None = None
  bytes_accessed_with_core_memory_per_chip: float | None = None
  # Received by a chip: over its slice's links by kind, and 'dcn'.
  collective_bytes: dict[str, float] | None = None
  ici_seconds: float | None = None
  dcn_seconds: float | None = None
  # In which the chip waits for the two, products and passes over.
  exposed_seconds: float | None = None
  # The longer of operations and bytes; with what is exposed; and with each
  # instruction at its own peak, in the compiler's order.
  roofline_step_seconds: float | None = None
  step_seconds: float | None = None
  ordered_step_seconds: float | None = None
  rows_per_second: float | None = None
  # Of `step_seconds`.
  utilisation_bound: float | None = None
  hours: float | None = None
  chip_hours: float | None = None
  host_input: dict[str, Any] | None = None
  fits: bool = True
  # Of a search: rows a step, bytes and utilisation of each batch.
  tried: list[list[Any]] = dataclasses.field(default_factory=list)


def plan(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Writes plan.json, prints it as a table, and returns it.

  Raises:
    UserError: a config, topology or mesh that cannot be meant, or no libtpu.
  """
  config = config.copy_and_resolve_references()
  config_lib.check(config)
  errors.check_choice('plan.job', config.plan.job, JOBS)
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
  chip = chips.of_device(mesh.devices.flat[0].device_kind)
  if chip is None:
    return None
  (program,) = jobs.train(config, mesh).programs
  return program.model_flops() / chip.peak_flops


def _devices(config: ConfigDict) -> tuple[list[jax.Device], chips.Chip | None]:
  return chips.devices(config.plan.topology, config.plan.slices)


def _job(config: ConfigDict, devices: list[jax.Device]) -> jobs.Job:
  if config.plan.job == 'train':
    return jobs.train(config, sharding.make_mesh(
        **config.mesh, devices=devices))
  return getattr(jobs, config.plan.job)(config, devices)


def _plan(config: ConfigDict) -> Plan:
  """Returns the plan of one config."""
  devices, chip = _devices(config)
  job = _job(config, devices)
  logging.info('compiling %d rows for %s, mesh %s: a minute or more',
               job.rows, config.plan.topology or devices[0].device_kind,
               dict(job.mesh.shape))
  try:
    compiled = [program.compile(devices[0].platform)
                for program in job.programs]
  except jax.errors.JaxRuntimeError as error:
    used = _used_bytes(str(error))
    if used is None:
      raise
    found = _about(config, job, devices, chip)
    return Plan(**found | {'fits': False, 'bytes_per_chip': found[
        'bytes_per_chip'] | {'total': used}})
  return describe(config, job, compiled, devices, chip)


def _about(config, job, devices, chip) -> dict[str, Any]:
  """Returns what a plan says before anything is compiled."""
  return dict(
      topology=config.plan.topology or devices[0].device_kind,
      chips=len(devices), mesh=dict(job.mesh.shape), job=config.plan.job,
      slices=config.plan.slices,
      hosts=len({device.process_index for device in devices}),
      rows_per_step=job.rows, steps=job.steps, parameters=sum(
          math.prod(leaf.shape) for leaf in jax.tree.leaves(job.params)),
      bytes_per_chip={
          'parameters': jobs.device_bytes(job.params),
          'optimizer': jobs.device_bytes(job.opt_state),
          'limit': chip.memory_bytes if chip else None})


def describe(config: ConfigDict, job: jobs.Job, compiled: Sequence[Any],
             devices: Sequence[jax.Device], chip: chips.Chip | None) -> Plan:
  """Returns the plan of a job whose programs were compiled."""
  about = _about(config, job, devices, chip)
  memory = about['bytes_per_chip'] | max(
      map(_memory, compiled), key=lambda parts: parts['total'])
  costs = [_costs(program, one, job.mesh, chip)
           for program, one in zip(job.programs, compiled, strict=True)]
  total = {key: None if value is None else sum(
      program.per_step * cost[key]
      for program, cost in zip(job.programs, costs, strict=True))
           for key, value in costs[0].items() if key != 'collective_bytes'}
  # Where there are several programs, they send nothing.
  total['collective_bytes'] = costs[0]['collective_bytes']
  if chip:
    total |= _speed(config, job, total, chip, about['hosts'], len(devices))
  return Plan(**about | total | {
      'bytes_per_chip': memory,
      'fits': chip is None or memory['total'] <= chip.memory_bytes})


def _memory(compiled) -> dict[str, float]:
  analysis = compiled.memory_analysis()
  parts = {
      'arguments': analysis.argument_size_in_bytes,
      'temporaries': analysis.temp_size_in_bytes,
      'output': (analysis.output_size_in_bytes
                 - analysis.alias_size_in_bytes)}
  return parts | {'total': sum(parts.values())}


def _costs(program: jobs.Program, compiled, mesh: Mesh,
           chip: chips.Chip | None) -> dict[str, Any]:
  """Returns what one run of a program takes, by the keys of `Plan`."""
  text = compiled.as_text()
  cost = hlo_cost.count(text)
  # A GPU's compiler calls a library for products and says no more of them.
  flops = program.traced_flops() if '__cublas' in text else cost.flops
  return dict(
      flops_per_chip=flops, traced_flops_per_chip=program.traced_flops(),
      model_flops_per_chip=program.model_flops(),
      bytes_accessed_per_chip=cost.hbm_bytes,
      bytes_accessed_with_core_memory_per_chip=cost.bytes,
      **links.count(text, list(mesh.devices.flat), chip),
      roofline_step_seconds=chip and max(
          flops / chip.peak_flops, cost.hbm_bytes / chip.bandwidth))


def _speed(config: ConfigDict, job: jobs.Job, total: dict[str, Any],
           chip: chips.Chip, hosts: int, num_chips: int) -> dict[str, Any]:
  """Returns what follows from the costs of a step."""
  seconds = total['roofline_step_seconds'] + total['exposed_seconds']
  hours = job.steps * seconds / 3600
  return dict(
      step_seconds=seconds, rows_per_second=job.rows / seconds,
      utilisation_bound=(total['model_flops_per_chip']
                         / (chip.peak_flops * seconds)),
      hours=hours, chip_hours=hours * num_chips,
      host_input=feed.needed(config, seconds, hosts)
      if config.plan.job == 'train' else None)


def _search(config: ConfigDict) -> Plan:
  """Returns the plan of the fastest batch of some, up to the largest that fits.

  A larger one need not be faster: what no longer stays in a core's memory is
  written and read again.

  Raises:
    UserError: not even one row a device and task fits.
  """
  devices, chip = _devices(config)
  if chip is None:
    raise errors.UserError(
        f'plan.search: the memory of {devices[0].device_kind} is not known; '
        "set plan.topology, such as 'v5e:2x4'")
  mesh = _job(config, devices).mesh
  parts = mesh.size // mesh.shape.get('model', 1)
  plans: list[Plan] = []
  scale = 1.0
  while True:
    found = _plan(jobs.scaled(config, scale, parts))
    plans.append(found)
    logging.info('%d rows: %s of %s, utilisation %s', found.rows_per_step,
                 _gb(found.bytes_per_chip['total']),
                 _gb(found.bytes_per_chip['limit']),
                 _utilisation(found.utilisation_bound))
    best = max((one for one in plans if one.fits), default=None,
               key=lambda one: one.rows_per_step)
    at_least = best.rows_per_step if best else 0
    too_many = min((one.rows_per_step for one in plans if not one.fits),
                   default=math.inf)
    scale *= _next_guess(plans[-2:], too_many=too_many,
                         at_least=at_least) / found.rows_per_step
    rows = _job(jobs.scaled(config, scale, parts), devices).rows
    if (any(one.rows_per_step == rows for one in plans)
        or min(rows, too_many) <= at_least * (1 + _SEARCH_PRECISION)):
      if best:
        fastest = max((one for one in plans if one.fits), key=lambda one: (
            one.rows_per_second or 0, one.rows_per_step))
        return dataclasses.replace(fastest, tried=[
            [one.rows_per_step, one.bytes_per_chip['total'],
             one.utilisation_bound] for one in plans])
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
  where = f'{found.slices} x ' * (found.slices > 1) + found.topology
  lines = [f'{where}: {found.chips} chips, mesh {found.mesh}, {found.job}',
           f'rows a step         {found.rows_per_step:,}',
           f'parameters          {found.parameters:,}']
  lines += [f'{name + " a chip":<20}{_gb(memory[name])}' for name in (
      'parameters', 'optimizer', 'arguments', 'temporaries', 'output',
      'total', 'limit') if memory.get(name) is not None]
  for label, value, unit, name in (
      ('operations', found.flops_per_chip, 1e12, 'T'),
      ('  of the model', found.model_flops_per_chip, 1e12, 'T'),
      ('bytes moved', found.bytes_accessed_per_chip, 1e9, 'GB'),
      *((kind, size, 1e9, 'GB received')
        for kind, size in (found.collective_bytes or {}).items())):
    if value is not None:
      lines.append(f'{label:<20}{value / unit:,.2f} {name} a chip and step')
  if found.utilisation_bound is not None:
    lines += _speed_lines(found)
  lines += [f'tried               {rows:,} rows: {_gb(size)}, utilisation '
            f'{_utilisation(bound)}' for rows, size, bound in found.tried]
  lines.append('fits' if found.fits else f'does not fit: {_advice(found)}')
  return '\n'.join(lines)


def _speed_lines(found: Plan) -> list[str]:
  busy = found.ici_seconds + found.dcn_seconds
  lines = [
      f'step at best        {1000 * found.step_seconds:,.1f} ms, of which '
      f'{1000 * found.exposed_seconds:,.1f} wait for other chips',
      f'  links busy        {1000 * found.ici_seconds:,.1f} ms within a slice, '
      f'{1000 * found.dcn_seconds:,.1f} between slices; '
      f'{100 * (1 - found.exposed_seconds / busy) if busy else 100:.0f} % '
      'behind products',
      f'  one by one        {1000 * found.ordered_step_seconds:,.1f} ms, each '
      'instruction at its own peak',
      f'rows a second       {found.rows_per_second:,.0f} at best',
      f'utilisation         {found.utilisation_bound:.3f} at best',
      f'whole job           {found.steps:,.0f} steps, '
      f'{found.hours:,.2f} hours, {found.chip_hours:,.1f} chip-hours at best']
  return lines + feed.lines(found.host_input or {}, found.hosts)


def _advice(found: Plan) -> str:
  memory = found.bytes_per_chip
  return (f'{_gb(memory["total"])} a chip are needed, '
          f'{_gb(memory["total"] - memory["limit"])} more than there are. '
          "Lower tasks.*.batch_size or raise accumulation_steps; set "
          "model.remat='input'; or take more chips (mesh.fsdp splits the "
          f'state: {_gb(memory["parameters"] + memory["optimizer"])} here)')


def _utilisation(bound: float | None) -> str:
  return '-' if bound is None else f'{bound:.3f}'


def _gb(size: float) -> str:
  return f'{size / 2**30:.2f} GiB'
