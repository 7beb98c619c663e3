"""Training and scoring against PyTorch: speed, memory, and a start's time."""

from collections.abc import Sequence
import pathlib
import sys
import tempfile
import time

from benchmarks import contest
from benchmarks import problems
from benchmarks import report
from m3p_jax.model import config as model_config

_STARTS, _STEPS = 2, 2


def training_step(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of steps with all four objectives."""
  rows, ours_name = [], 'training step'
  for size in sizes:
    problem = problems.PROBLEMS[size]
    ratios = _contest(size, 'training', ours_name)
    fastest = min(ratios, key=lambda name, found=ratios: found[name].other)
    rows += [report.rate(
        f'{ours_name}, {size}', f'PyTorch, {name}', ratio,
        count=problem.task_rows * len(problems.TASKS), unit='rows/s',
        wanted=1.0 if name == fastest else None, note=training_note(size))
             for name, ratio in ratios.items()]
  return rows


def _contest(size: str, work: str, ours_name: str) -> dict[str, contest.Ratio]:
  """Returns {PyTorch's variant: how many times faster ours was}."""
  with (contest.Process(f'benchmarks.ours:{work}', size=size) as ours,
        contest.Process(f'benchmarks.against_pytorch.{work}:variants',
                        size=size) as other):
    timings = contest.take_turns(
        {ours_name: (ours, ours_name)}
        | {name: (other, name) for name in other.names},
        rounds=problems.PROBLEMS[size].rounds)
  seconds = {name: [timing.seconds for timing in found]
             for name, found in timings.items()}
  return {name: contest.compare(seconds[ours_name], seconds[name])
          for name in other.names}


def training_note(size: str) -> str:
  """Returns which variant counts, and which work ours does not do."""
  problem = problems.PROBLEMS[size]
  share = 1 - problems.training_flops(problem) / problems.training_flops(
      problem, reads_all=True)
  return ('the fastest of PyTorch\'s variants counts; its last layer computes '
          'every position, ours those that a head reads, which leaves out '
          f'{share:.1%} of a step\'s products at {size} size')


def exact_scoring(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of every pair's match logit.

  Lengths of captions are those of Multi30k (caption_lengths.json). PyTorch
  pads them to the release's 64 ids, or to the longest.
  """
  rows, dtype, ours_name = [], model_config.fast_dtype('cpu'), 'exact scoring'
  for size in sizes:
    problem = problems.PROBLEMS[size]
    rows += [report.rate(
        f'{ours_name}, {size}', f'PyTorch {dtype}, {name}', ratio,
        count=problem.score_rows * problem.score_pictures, unit='pairs/s',
        wanted=1.5 if size == 'base' and '64' in name else None,
        note=scoring_note(size))
             for name, ratio in _contest(size, 'scoring', ours_name).items()]
  return rows


def scoring_note(size: str) -> str:
  """Returns which work ours does not do."""
  problem = problems.PROBLEMS[size]
  length = problem.num_regions + problems.RELEASE_LENGTH
  share = 1 - problems.encoder_flops(problem, length, 1) / (
      problems.encoder_flops(problem, length, None))
  return ('PyTorch\'s last layer computes every position, ours the first '
          f'alone, which leaves out {share:.1%} of a row\'s products at {size} '
          'size')


def start_up(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of the first size: second start against the first.

  Each start is a process of its own: imports, first parameters, compilation;
  then one step, which the other rows include. Every round begins with an
  empty compilation cache.
  """
  size = sizes[0]
  starts: dict[str, list[tuple[float, float]]] = {'first': [], 'second': []}
  for _ in range(_STARTS):
    with tempfile.TemporaryDirectory() as folder:
      for name in starts:
        starts[name].append(_start(size, pathlib.Path(folder)))
        print(f'  {name}: ready after %.1f s, first step done after %.1f s'
              % starts[name][-1], file=sys.stderr, flush=True)
  rows = []
  for index, end in enumerate(('ready for the first step', 'first step done')):
    ratio = contest.compare(*(
        [start[index] for start in starts[name]] for name in (
            'second', 'first')))
    rows.append(report.Row(
        f'second start, {size}, until {end}', 'the first start', ratio, 's',
        ratio.ours, ratio.other, wanted=2.5))
  return rows


def _start(size: str, folder: pathlib.Path) -> tuple[float, float]:
  """Returns the seconds until the step is compiled, and until it is done."""
  start = time.perf_counter()
  with contest.Process('benchmarks.ours:first_step', size=size, environment={
      'JAX_COMPILATION_CACHE_DIR': str(folder),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'}) as process:
    process.run('compile')
    ready = time.perf_counter() - start
    process.run('training step')
    return ready, time.perf_counter() - start


def peak_memory(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of what a process holds at most, one after the other."""
  rows, fast = [], model_config.fast_dtype('cpu')
  for size in sizes:
    ours = _peak('benchmarks.ours:training', size=size)
    for variant in dict.fromkeys(('eager float32', f'eager {fast}')):
      other = _peak('benchmarks.against_pytorch.training:variants', size=size,
                    names=(variant,))
      rows.append(report.Row(
          f'peak memory of training, {size}', f'PyTorch, {variant}',
          report.single(ours, other), 'GB', ours / 1e9, other / 1e9,
          wanted=1.0 if size == 'base' else None))
    ours = _peak('benchmarks.ours:scoring', size=size)
    other = _peak('benchmarks.against_pytorch.scoring:variants', size=size)
    rows.append(report.Row(
        f'peak memory of scoring, {size}', f'PyTorch, eager {fast}',
        report.single(ours, other), 'GB', ours / 1e9, other / 1e9))
  return rows


def _peak(factory: str, **arguments) -> float:
  with contest.Process(factory, **arguments) as process:
    for _ in range(_STEPS):
      process.run(process.names[0])
    return float(process.peak_bytes())
