"""Training steps against PyTorch's, and against the machine's own peak."""

from collections.abc import Sequence

from benchmarks import contest
from benchmarks import problems
from benchmarks import report

OURS = 'training step'


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of these sizes; all four objectives in every step."""
  rows = []
  for size in sizes:
    rows += _measure(size)
  return rows


def _measure(size: str) -> list[report.Row]:
  problem = problems.PROBLEMS[size]
  with (contest.Process('benchmarks.ours:training', size=size) as ours,
        contest.Process('benchmarks.against_pytorch.training:variants',
                        size=size) as other,
        contest.Process('benchmarks.ours:matmul') as peak):
    contenders = {OURS: (ours, OURS)}
    contenders |= {name: (other, name) for name in other.names}
    contenders |= {name: (peak, name) for name in peak.names}
    timings = contest.take_turns(contenders, rounds=problem.rounds)
  seconds = {name: [timing.seconds for timing in found]
             for name, found in timings.items()}
  ratios = {name: contest.compare(seconds[OURS], found)
            for name, found in seconds.items()}
  fastest = min(other.names, key=lambda name: ratios[name].other)
  name = f'training step, {size}'
  rows = [report.rate(
      name, f'PyTorch, {variant}', ratios[variant],
      count=problem.task_rows * len(problems.TASKS), unit='rows/s',
      wanted=1.2 if variant == fastest else None,
      note='the fastest of PyTorch\'s variants counts'
      if variant == fastest else '') for variant in other.names]
  return rows + [_share_of_peak(name, problem, matmul, ratios[matmul],
                                timings[matmul][0].numbers['flops'])
                 for matmul in peak.names]


def _share_of_peak(name, problem, matmul, ratio, flops) -> report.Row:
  """Returns the row of matrix products a second against the peak's."""
  needed = problems.training_flops(problem)
  share = ratio._replace(**{
      field: getattr(ratio, field) * needed / flops
      for field in ('value', 'low', 'high')})
  return report.Row(
      name, matmul, share, 'GFLOP/s', needed / ratio.ours / 1e9,
      flops / ratio.other / 1e9,
      wanted=0.75 if problem is problems.PROBLEMS['base'] else None,
      note='the ratio is the share of the peak reached')
