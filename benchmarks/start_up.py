"""From nothing to the first training step, compiled anew or found again."""

from collections.abc import Sequence
import pathlib
import tempfile
import time

from benchmarks import contest
from benchmarks import report

_ROUNDS = 2


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the row of the first size: second start against the first.

  Each start is a process of its own: imports, first parameters, compilation,
  one step. Every round begins with an empty compilation cache.
  """
  size = sizes[0]
  seconds: dict[str, list[float]] = {'first': [], 'second': [], 'off': []}
  for _ in range(_ROUNDS):
    with tempfile.TemporaryDirectory() as folder:
      for name in seconds:
        seconds[name].append(_start(size, pathlib.Path(folder),
                                    is_on=name != 'off'))
  return [report.Row(
      f'start to first step, {size}, second start', other, ratio, 's',
      ratio.ours, ratio.other, wanted=2.5 if name == 'first' else None,
      note='a ratio of 2.5 is 0.4 of the time' if name == 'first' else '')
          for name, other in (('first', 'the first start'),
                              ('off', 'without compilation cache'))
          for ratio in [contest.compare(seconds['second'], seconds[name])]]


def _start(size: str, folder: pathlib.Path, *, is_on: bool) -> float:
  start = time.perf_counter()
  with contest.Process('benchmarks.ours:first_step', size=size, environment={
      'JAX_ENABLE_COMPILATION_CACHE': str(is_on).lower(),
      'JAX_COMPILATION_CACHE_DIR': str(folder),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'}) as process:
    process.run('first step')
    return time.perf_counter() - start
