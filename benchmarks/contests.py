"""Training and scoring against PyTorch: speed and memory."""

from collections.abc import Sequence

from benchmarks import contest
from benchmarks import problems
from benchmarks import report
from m3p_jax.model import config as model_config

_STEPS = 2
_READ = ('PyTorch\'s last layer computes every position, ours those that are '
         'read: docs/performance.md says how much that leaves out')


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
        wanted=1.0 if name == fastest else None,
        note=f"the fastest of PyTorch's variants counts; {_READ}")
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
        note=_READ)
             for name, ratio in _contest(size, 'scoring', ours_name).items()]
  return rows


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
