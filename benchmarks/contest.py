"""Contenders in processes of their own, run in turn, and their ratio.

A contender's process holds its model and threads and rests while another one
runs; its peak memory is its own.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import importlib
import multiprocessing
import pathlib
import resource
import statistics
import sys
import time
import traceback
from typing import Any, NamedTuple

# A contest that has taken longer ends after this many rounds.
_SECONDS, _LEAST_ROUNDS = 240, 3

# A run of one contender; it may return numbers to report beside its time, and
# 'seconds' and 'cpu_seconds' where only a part of the run counts.
Run = Callable[[], Mapping[str, float] | None]


def timed(iterator, batches: int, made_ahead: int) -> dict[str, float]:
  """Returns the seconds that `batches` take after `made_ahead` others."""
  for _ in range(made_ahead):
    next(iterator)
  start, cpu_start = time.perf_counter(), time.process_time()
  for _ in range(batches):
    next(iterator)
  return {'seconds': time.perf_counter() - start,
          'cpu_seconds': time.process_time() - cpu_start}


class Timing(NamedTuple):
  """One run: seconds on the clock and of all cores, and what it reported."""
  seconds: float
  cpu_seconds: float
  numbers: Mapping[str, float]


class Ratio(NamedTuple):
  """How many times faster ours was.

  Attributes:
    value: median seconds of the other, divided by ours.
    low: lower quartile of the ratios of neighbouring runs.
    high: upper quartile.
    ours: median seconds.
    other: median seconds.
    runs: of each.
  """
  value: float
  low: float
  high: float
  ours: float
  other: float
  runs: int


class Process:
  """One process of contenders, each a function that is run when asked."""

  def __init__(self, factory: str, **arguments: Any):
    """Starts the process.

    Args:
      factory: 'module:function'; called there with the arguments, it returns
        {name: Run}.
      **arguments: its arguments.
    """
    context = multiprocessing.get_context('spawn')
    self._pipe, child = context.Pipe()
    self._process = context.Process(
        target=_serve, args=(child, factory, arguments), daemon=False)
    self._process.start()
    child.close()
    self.names: list[str] = self._receive()

  def __enter__(self) -> 'Process':
    return self

  def __exit__(self, *error: Any) -> None:
    self.close()

  def run(self, name: str) -> Timing:
    """Returns how long the contender took, measured in its process."""
    return Timing(*self._ask('run', name))

  def peak_bytes(self) -> int:
    """Returns the most memory that the process has held so far."""
    return self._ask('peak', None)

  def close(self) -> None:
    """Ends the process."""
    with contextlib.suppress(BrokenPipeError):
      self._pipe.send(('stop', None))
    self._process.join()

  def _ask(self, verb, value):
    self._pipe.send((verb, value))
    return self._receive()

  def _receive(self):
    try:
      error, value = self._pipe.recv()
    except EOFError:
      self._process.join()
      raise RuntimeError(
          f'a contender died (exit code {self._process.exitcode}); was there '
          'memory enough?') from None
    if error:
      raise RuntimeError(f'a contender failed:\n{error}')
    return value


def take_turns(contenders: Mapping[str, tuple[Process, str]], *,
               rounds: int) -> dict[str, list[Timing]]:
  """Returns the timings of `rounds` runs of each, run in turn.

  The order turns round each time, so that a machine that slows down slows all
  of them alike. A first run of each, which compiles, is not counted. On a slow
  machine there are fewer rounds, so that all benchmarks fit into an hour.

  Args:
    contenders: name → process, and the name in it.
    rounds: runs of each that count; at most.
  """
  timings: dict[str, list[Timing]] = {name: [] for name in contenders}
  order = list(contenders)
  start = time.monotonic()
  for index in range(rounds + 1):
    for name in order:
      process, key = contenders[name]
      timing = process.run(key)
      print(f'  {name}: {timing.seconds:.3f} s, '
            f'{timing.cpu_seconds:.3f} s of CPU' + (
          ' (first)' if index == 0 else ''), file=sys.stderr, flush=True)
      if index:
        timings[name].append(timing)
    order.reverse()
    if index >= _LEAST_ROUNDS and time.monotonic() - start > _SECONDS:
      break
  return timings


def compare(ours: Sequence[float], other: Sequence[float]) -> Ratio:
  """Returns other / ours of seconds that were measured in turn."""
  pairs = [b / a for a, b in zip(ours, other, strict=True)]
  low, _, high = (statistics.quantiles(pairs, n=4, method='inclusive')
                  if len(pairs) > 1 else pairs * 3)
  ours_median, other_median = map(statistics.median, (ours, other))
  return Ratio(other_median / ours_median, low, high, ours_median,
               other_median, len(pairs))


def peak_bytes() -> int:
  """Returns the most memory that this process has held."""
  # getrusage would count what the parent held when it started this process.
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    (line,) = (line for line in status.read_text().splitlines()
               if line.startswith('VmHWM:'))
    return 1024 * int(line.split()[1])
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * (1 if sys.platform == 'darwin' else 1024)


def _serve(pipe, factory: str, arguments: dict[str, Any]) -> None:
  """Answers the pipe until it says stop."""
  try:
    module, name = factory.split(':')
    runs: dict[str, Run] = getattr(
        importlib.import_module(module), name)(**arguments)
    pipe.send((None, list(runs)))
    while True:
      verb, value = pipe.recv()
      if verb == 'stop':
        return
      if verb == 'peak':
        pipe.send((None, peak_bytes()))
        continue
      cpu, start = time.process_time(), time.perf_counter()
      numbers = runs[value]() or {}
      seconds = numbers.get('seconds', time.perf_counter() - start)
      cpu_seconds = numbers.get('cpu_seconds', time.process_time() - cpu)
      pipe.send((None, (seconds, cpu_seconds, numbers)))
  except EOFError:
    return
  except Exception:  # Whatever it was, the other side must know.
    pipe.send((traceback.format_exc(), None))
