"""What this machine's TPU or GPU does, beside what its plan allows: one table.

python -m benchmarks.on_accelerator [--size=base] [--out=DIR] [--minutes=8]

Golden vectors in float32 and bfloat16, a training step with all objectives,
exact scoring and indexing, on all local devices and without a network. '–' is
what the device does not tell. Parts for which no minute is left are named and
left out.
"""

from collections.abc import Callable, Sequence
import math
import pathlib
import sys
import time
from typing import Any

from absl import flags
import jax
import numpy as np

from benchmarks import contest
from benchmarks import ours
from benchmarks import problems
from benchmarks import report
from input_pipeline import console
from input_pipeline import errors
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax.convert import check
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import exact
from m3p_jax.planning import chips
from m3p_jax.planning import jobs
from m3p_jax.planning import plan

_VECTORS = pathlib.Path(__file__).parents[1] / 'tests' / 'golden'
# Runs that are timed, and steps in one of them.
_RUNS, _STEPS = 5, 5
_BOUND = 'its plan at best'


def golden(problem: problems.Problem) -> list[report.Row]:
  """Returns the array that is furthest from the reference, in each format."""
  del problem
  rows = []
  for dtype in ('float32', 'bfloat16'):
    lines = [line for kind, folder, file in (
        ('m3p', 'm3p_small', 'checkpoint.pth'),
        ('xlmr', 'xlmr_small', 'model.safetensors')) for line in check.run(
            kind, _VECTORS / folder / file, _VECTORS / folder, dtype)]
    worst = max(lines, key=lambda line: _difference(line) / line.tolerance)
    rows.append(report.Row(
        f'golden vectors, {dtype}: {worst.name}', 'allowed', report.single(
            max(_difference(worst), 1e-12), worst.tolerance), worst.kind,
        _difference(worst), worst.tolerance, wanted=1.0,
        note=f'{sum(line.passes for line in lines)} of {len(lines)} arrays '
        'are as near as allowed; here is the furthest'))
  return rows


def _difference(line: check.Line) -> float:
  return getattr(line, line.kind)


def training(problem: problems.Problem) -> list[report.Row]:
  """Returns the rows of a step, its share of the peak and its memory."""
  mesh = sharding.make_mesh()
  config = ours.make_config(problem)
  job = jobs.train(config, mesh)
  planned, (step,) = _planned(config, job)
  state, _ = ours.begin(config, mesh)
  batches = sharding.put_rows(mesh, jax.tree.map(
      lambda x, like: np.asarray(x).astype(like.dtype),
      ours.make_batches(problem), job.programs[0].arguments[1]))
  key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))

  def run():
    nonlocal state
    for _ in range(_STEPS):
      state, metrics = step(state, batches, key)
      sharding.settle(metrics)
    jax.block_until_ready(state)

  rate = _rate('training step', planned, run, planned.rows_per_step * _STEPS)
  seconds = rate.ratio.ours / _STEPS
  chip = chips.of_device(planned.topology)
  stats = jax.local_devices()[0].memory_stats() or {}
  held, needed = (size / 1e9 for size in (
      stats.get('peak_bytes_in_use', math.nan),
      planned.bytes_per_chip['total']))
  return [
      rate, rate._replace(
          name='share of the peak', unit='', ours=planned.model_flops_per_chip
          / (chip.peak_flops * seconds) if chip else math.nan,
          theirs=planned.utilisation_bound or math.nan),
      report.Row('memory of a device', 'its plan', report.single(held, needed),
                 'GB', held, needed)]


def searching(problem: problems.Problem) -> list[report.Row]:
  """Returns the rows of every pair's match logit, and of the vectors."""
  count = max(problem.score_rows, problem.score_pictures)
  batch = jax.tree.map(np.asarray, ours.as_batch(
      problems.make_rows(problem, count, seed=1)))
  regions = jax.tree.map(lambda x: x[:problem.score_pictures], batch.regions)
  texts = engine_lib.Texts(*(x[:problem.score_rows] for x in batch[:3]))
  question = exact.Question(texts, np.arange(problem.score_pictures))
  engine, config = ours.make_engine(problem), ours.make_config(problem)

  def rate(name, job, run, count, unit):
    planned, _ = _planned(config, job(config, jax.local_devices()))
    return _rate(name, planned, run, count, unit)

  return [
      rate('exact scoring', jobs.score,
           lambda: exact.scores(engine, regions, {'': question}),
           problem.score_rows * problem.score_pictures, 'pairs/s'),
      rate('indexing', jobs.index, lambda: (
          engine.embed_images(regions), engine.embed_texts(texts)),
           problem.score_rows + problem.score_pictures, 'items/s')]


def _planned(config: Any, job: jobs.Job) -> tuple[plan.Plan, list[Any]]:
  """Returns the plan of a job on these devices, and its compiled programs."""
  devices = list(job.mesh.devices.flat)
  compiled = [program.compile(devices[0].platform) for program in job.programs]
  return plan.describe(config, job, compiled, devices, chips.of_device(
      devices[0].device_kind)), compiled


def _rate(name: str, planned: plan.Plan, run: Callable[[], Any], count: float,
          unit: str = 'rows/s') -> report.Row:
  """Returns the row of so many things a run; the first, uncounted, compiles."""
  seconds = []
  for _ in range(_RUNS + 1):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  bound = count / (planned.rows_per_second or math.nan)
  return report.rate(name, _BOUND, contest.compare(
      seconds[1:], [bound] * _RUNS), count=count, unit=unit)


PARTS = golden, training, searching


def measure(size: str, minutes: float) -> list[report.Row]:
  """Returns the rows of all parts that could be begun in time."""
  problem, count = problems.PROBLEMS[size], jax.device_count()
  problem = problem._replace(
      task_rows=problem.task_rows * count,
      score_rows=problem.score_rows * count)
  rows, start = [], time.monotonic()
  for part in PARTS:
    spent = (time.monotonic() - start) / 60
    # What compiles for long is begun while it can still be ended.
    if spent > minutes / 2:
      print(f'{part.__name__}: left out, {spent:.1f} of {minutes:g} minutes '
            'are gone', file=sys.stderr)
      continue
    print(f'{part.__name__} (after {spent:.1f} minutes)', file=sys.stderr,
          flush=True)
    rows += part(problem)
  return rows


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  errors.check_choice('--size', args.size, problems.PROBLEMS)
  startup.use_compilation_cache()
  devices = jax.devices()
  rows = measure(args.size, args.minutes)
  out = pathlib.Path(args.out)
  report.write(rows, report.machine() | {
      'processor': f'{len(devices)} x {devices[0].device_kind}'}, out)
  print((out / 'table.md').read_text())


if __name__ == '__main__':
  flags.DEFINE_string('size', 'accelerator', 'Key of problems.PROBLEMS.')
  flags.DEFINE_string('out', 'runs/on_accelerator', 'Folder of the table.')
  flags.DEFINE_float('minutes', 8, 'How long it may take.')
  console.run_main(main)
