"""Exact retrieval scoring against PyTorch: every pair's match logit."""

from collections.abc import Sequence

from benchmarks import contest
from benchmarks import problems
from benchmarks import report
from m3p_jax.model import config as model_config

OURS = 'exact scoring'


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of these sizes.

  Lengths of captions are those of Multi30k (caption_lengths.json). PyTorch
  pads them to the release's 64 ids, or to the longest.
  """
  rows, dtype = [], model_config.fast_dtype('cpu')
  for size in sizes:
    problem = problems.PROBLEMS[size]
    with (contest.Process('benchmarks.ours:scoring', size=size) as ours,
          contest.Process('benchmarks.against_pytorch.scoring:variants',
                          size=size) as other):
      contenders = {OURS: (ours, OURS)} | {
          name: (other, name) for name in other.names}
      timings = contest.take_turns(contenders, rounds=problem.rounds)
    seconds = {name: [timing.seconds for timing in found]
               for name, found in timings.items()}
    rows += [report.rate(
        f'exact scoring, {size}', f'PyTorch {dtype}, {name}',
        contest.compare(seconds[OURS], seconds[name]),
        count=timings[OURS][0].numbers['pairs'], unit='pairs/s',
        wanted=1.5 if size == 'base' and '64' in name else None)
             for name in other.names]
  return rows
