"""From nothing to the first training step, compiled anew or found again."""

from collections.abc import Sequence
import pathlib
import sys
import tempfile
import time

from benchmarks import contest
from benchmarks import report

_ROUNDS = 2


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of the first size: second start against the first.

  Each start is a process of its own: imports, first parameters, compilation;
  then one step, which the other rows include. Every round begins with an
  empty compilation cache.
  """
  size = sizes[0]
  starts: dict[str, list[tuple[float, float]]] = {
      'first': [], 'second': [], 'off': []}
  for _ in range(_ROUNDS):
    with tempfile.TemporaryDirectory() as folder:
      for name in starts:
        starts[name].append(_start(size, pathlib.Path(folder),
                                   is_on=name != 'off'))
        print(f'  {name}: ready after %.1f s, first step done after %.1f s'
              % starts[name][-1], file=sys.stderr, flush=True)
  rows = []
  for index, end in enumerate(('ready for the first step', 'first step done')):
    seconds = {name: [start[index] for start in found]
               for name, found in starts.items()}
    for name, other in (('first', 'the first start'),
                        ('off', 'without compilation cache')):
      ratio = contest.compare(seconds['second'], seconds[name])
      is_judged = name == 'first'
      rows.append(report.Row(
          f'second start, {size}, until {end}', other, ratio, 's', ratio.ours,
          ratio.other, wanted=2.5 if is_judged else None,
          note='a ratio of 2.5 is 0.4 of the time' if is_judged else ''))
  return rows


def _start(size: str, folder: pathlib.Path, *,
           is_on: bool) -> tuple[float, float]:
  """Returns the seconds until the step is compiled, and until it is done."""
  start = time.perf_counter()
  with contest.Process('benchmarks.ours:first_step', size=size, environment={
      'JAX_ENABLE_COMPILATION_CACHE': str(is_on).lower(),
      'JAX_COMPILATION_CACHE_DIR': str(folder),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1'}) as process:
    process.run('compile')
    ready = time.perf_counter() - start
    process.run('training step')
    return ready, time.perf_counter() - start
