"""Follows a run one step behind: metrics, rates, the bar, the broken loss."""

from collections.abc import Callable, Mapping
import math
import signal
import threading
import time
from typing import Any
import zlib

from absl import logging
import jax
import numpy as np

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import metrics as metrics_lib
from m3p_jax import train_step


class Progress:
  """Downloads the metrics of step n while the device works on step n + 1."""

  def __init__(self, writer: metrics_lib.Writer, *, start_step: int,
               num_steps: int, log_every: int, rows_per_step: int,
               schedule: Callable[[int], jax.Array], title: str,
               unlogged: Mapping[str, tuple[float, float]],
               max_bad_steps: int = 1, peak_share: float | None = None):
    """Starts the clock and the bar.

    Args:
      writer: takes a line every `log_every` steps and at the last step.
      start_step: updates before this run.
      num_steps: updates in the whole run.
      log_every: steps that a line averages over.
      rows_per_step: examples in one step, over all tasks and hosts.
      schedule: learning rate by the number of past updates.
      title: in front of the bar.
      unlogged: what `unlogged` gave when the checkpoint was saved.
      max_bad_steps: steps in a row that may not be finite, at which it stops.
      peak_share: seconds of a step's model operations at the devices' peak;
        None = their kind is not known.
    """
    self._writer = writer
    self._num_steps, self._log_every = num_steps, log_every
    self._rows_per_step, self._schedule = rows_per_step, schedule
    self._max_bad_steps, self._bad_steps = max_bad_steps, 0
    self._peak_share = peak_share
    self._pending: tuple[int, train_step.Metrics, Any] | None = None
    self._sums: train_step.Metrics = {
        name: metrics_lib.Mean(*np.asarray(pair, np.float32))
        for name, pair in unlogged.items()}
    self._seconds: list[float] = []
    self._first_step = start_step + 1
    self._bar = console.bar(
        title, num_steps, unit='steps', initial=start_step,
        disable=jax.process_index() != 0)
    self._bar.set_postfix_str('compiling')
    self.restart_clock()

  def submit(self, step: int, metrics: train_step.Metrics,
             rows: Mapping[str, batch_lib.Batch]) -> None:
    """Takes the metrics of a step just dispatched; settles the one before.

    Args:
      step: its number.
      metrics: on the device.
      rows: of this host, to be named where a loss is not finite.
    """
    before, self._pending = self._pending, (step, metrics, rows)
    if before:
      self._settle(*before)

  def flush(self) -> None:
    """Settles the newest step; waits for the device.

    Raises:
      UserError: too many steps in a row were not finite.
    """
    if self._pending:
      self._settle(*self._pending)
      self._pending = None

  def unlogged(self) -> dict[str, tuple[float, float]]:
    """Returns the (total, weight) of what no line holds yet, after `flush`.

    Saved with the state, they let a resumed run write the very lines of one
    that was not interrupted.
    """
    return {name: (float(mean.total), float(mean.weight))
            for name, mean in self._sums.items()}

  def restart_clock(self) -> None:
    """Keeps what was done since the last step out of the next one's time."""
    self._time = time.perf_counter()

  def close(self) -> None:
    self._bar.close()
    self._writer.close()

  def _settle(self, step: int, metrics: train_step.Metrics, rows) -> None:
    metrics = jax.device_get(metrics)
    now = time.perf_counter()
    self._seconds.append(now - self._time)
    self._time = now
    told = _not_finite(step, metrics, rows)
    self._bad_steps = self._bad_steps + 1 if told else 0
    if told and self._bad_steps >= self._max_bad_steps:
      raise errors.UserError(
          f'{told}; stopped after {self._bad_steps} such steps in a row, the '
          'last checkpoint stays. A lower optimizer.learning_rate or '
          'optimizer.clip_norm, or longer optimizer.warmup_steps may help')
    if told:
      logging.warning('%s; its update is left out', told)
      metrics = jax.tree.map(np.zeros_like, metrics)
    self._sums = {name: self._sums[name] + value if self._sums else value
                  for name, value in metrics.items()}
    self._bar.update()
    if step % self._log_every == 0 or step == self._num_steps:
      self._write(step)

  def _write(self, step: int) -> None:
    values = {name: float(mean.compute()) for name, mean in self._sums.items()}
    seconds = self._seconds
    if step - len(seconds) + 1 == self._first_step and len(seconds) > 1:
      seconds = seconds[1:]  # The first step's time is the compiler's.
    step_seconds = sum(seconds) / len(seconds)
    rate = self._rows_per_step / step_seconds
    if self._peak_share is not None:
      values['mfu'] = self._peak_share / step_seconds
    self._writer.write(step, values | {
        'train/learning_rate': float(self._schedule(step - 1)),
        'examples_per_second': rate, 'step_seconds': step_seconds})
    self._bar.set_postfix_str(
        f'loss {values["train/loss"]:.3f}, {rate:,.0f} examples/s'
        + (f', MFU {values["mfu"]:.0%}' if 'mfu' in values else ''))
    self._sums, self._seconds = {}, []


class Termination:
  """Turns SIGTERM into a question that the loop asks after each step."""

  def __init__(self):
    self.is_asked = False

  def __enter__(self):
    # Python allows handlers in the main thread alone (notebooks, tests).
    self._is_main = threading.current_thread() is threading.main_thread()
    if self._is_main:
      self._old = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *unused_error):
    if self._is_main:
      signal.signal(signal.SIGTERM, self._old)

  def _ask(self, *unused_signal):
    self.is_asked = True


def _not_finite(step: int, metrics: train_step.Metrics,
                rows: Mapping[str, batch_lib.Batch]) -> str:
  """Returns what is not finite, with the batch's examples; '' = nothing."""
  watched = {name: float(mean.compute()) for name, mean in metrics.items()
             if name.endswith('/loss') or name == 'train/gradient_norm'}
  if all(math.isfinite(value) for value in watched.values()):
    return ''
  told = ', '.join(f'{name} = {value:g}' for name, value in watched.items())
  examples = '; '.join(f'{name}: {_example_ids(batch)}'
                       for name, batch in sorted(rows.items()))
  return (f'step {step}: a loss or gradient is not finite ({told}), in the '
          f'batch {examples}')


def _example_ids(batch: batch_lib.Batch) -> str:
  """Returns a batch's rows in words: pictures by id, texts by checksum."""
  if batch.regions is not None:
    ids = [str(number) for number in np.asarray(batch.regions.image_id_B)]
  else:
    ids = [f'{zlib.crc32(np.ascontiguousarray(row).tobytes()):08x}'
           for row in np.asarray(batch.token_ids_BL)]
  return ' '.join(ids)
