"""Weighted means that merge, the files they are written to, and progress."""

from collections.abc import Callable, Mapping
import importlib.util
import json
import math
import pathlib
import time
from typing import Any
import zlib

from absl import logging
from flax import struct
import jax
import numpy as np

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import batch as batch_lib


@struct.dataclass
class Mean:
  """A mean that is divided once, after all its parts were added.

  Attributes:
    total: float32 scalar, the weighted sum of the values.
    weight: float32 scalar ≥ 0, the sum of the weights.
  """
  total: jax.Array
  weight: jax.Array

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.weight + other.weight)

  def compute(self) -> jax.Array:
    """Returns total / weight; 0, with a finite gradient, where no weight."""
    is_empty = self.weight == 0
    # Replacing the divisor keeps NaN out of the gradient too.
    return self.total * (1 - is_empty) / (self.weight + is_empty)


Metrics = dict[str, Mean]


def add(sums: Metrics, values: Metrics) -> Metrics:
  """Returns the sums by name; {} begins them."""
  return {name: sums[name] + value if sums else value
          for name, value in values.items()}


class Writer:
  """Writes metrics as JSON lines, and for TensorBoard where it is installed.

  Attributes:
    path: the file of JSON lines, one object a step.
  """

  def __init__(self, workdir: pathlib.Path, *, start_step: int):
    """Opens the files in `workdir`, which is made if absent.

    Lines after `start_step`, of an interrupted run past its save, are dropped.
    """
    self.path = workdir / 'metrics.jsonl'
    self._tensorboard = None
    if jax.process_index():
      return  # The first process writes for all: metrics are global.
    workdir.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) for line in read(self.path)
             if line['step'] <= start_step]
    draft = self.path.with_suffix('.tmp')
    draft.write_text(''.join(f'{line}\n' for line in lines))
    draft.replace(self.path)
    if importlib.util.find_spec('tensorboard'):
      from tensorboard import summary  # Optional; TF no longer brings it.
      self._tensorboard = summary.Writer(str(workdir / 'tensorboard'))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes one line: `step` first, then the values by name."""
    if jax.process_index():
      return
    values = {name: float(value) for name, value in values.items()}
    with self.path.open('a') as file:
      file.write(json.dumps({'step': step} | values) + '\n')
    if self._tensorboard:
      for name, value in values.items():
        self._tensorboard.add_scalar(name, value, step)
      self._tensorboard.flush()

  def close(self) -> None:
    if self._tensorboard:
      self._tensorboard.close()


def read(path: pathlib.Path) -> list[dict[str, float]]:
  """Returns the lines of a metrics file; [] where there is none.

  A last line without its end, from a run that was killed, is left out.
  """
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]
          if line]


class Progress:
  """Downloads the metrics of step n while the device works on step n + 1."""

  def __init__(self, writer: Writer, *, start_step: int, num_steps: int,
               log_every: int, rows_per_step: int,
               schedule: Callable[[int], jax.Array], title: str,
               unlogged: Mapping[str, tuple[float, float]],
               max_bad_steps: int = 1, peak_seconds: float | None = None):
    """Starts the clock and the bar.

    Args:
      writer: takes a line every `log_every` steps and at the last step.
      start_step: updates before this run.
      num_steps: updates in the whole run.
      log_every: steps that a line averages over.
      rows_per_step: over all tasks and hosts.
      schedule: learning rate by the number of past updates.
      title: in front of the bar.
      unlogged: what `unlogged` gave when the checkpoint was saved.
      max_bad_steps: in a row, at which the run stops.
      peak_seconds: of a step's model operations at the devices' peak; None =
        their kind is not known.
    """
    self._writer, self._schedule = writer, schedule
    self._num_steps, self._log_every = num_steps, log_every
    self._rows_per_step, self._peak_seconds = rows_per_step, peak_seconds
    self._max_bad_steps, self._bad_steps = max_bad_steps, 0
    self._pending: tuple[int, Metrics, Any] | None = None
    self._sums: Metrics = {name: Mean(*np.asarray(pair, np.float32))
                           for name, pair in unlogged.items()}
    self._seconds: list[float] = []
    self._read_seconds: list[float] = []
    self._first_step = start_step + 1
    self._bar = console.bar(
        title, num_steps, unit='steps', initial=start_step,
        disable=jax.process_index() != 0)
    self._bar.set_postfix_str('compiling')
    self.restart_clock()

  def submit(self, step: int, metrics: Metrics,
             rows: Mapping[str, batch_lib.Batch], *,
             read_seconds: float) -> None:
    """Takes the metrics of a step just dispatched; settles the one before.

    `rows` are named where a loss is not finite; the step waited for them for
    `read_seconds`.
    """
    self._read_seconds.append(read_seconds)
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

  def _settle(self, step: int, metrics: Metrics, rows) -> None:
    metrics = jax.device_get(metrics)
    now = time.perf_counter()
    self._seconds.append(now - self._time)
    self._time = now
    fault = _not_finite(step, metrics, rows)
    self._bad_steps = self._bad_steps + 1 if fault else 0
    if fault and self._bad_steps >= self._max_bad_steps:
      raise errors.UserError(
          f'{fault}; stopped after {self._bad_steps} such steps in a row, the '
          'last checkpoint stays. A lower optimizer.learning_rate or '
          'optimizer.clip_norm, or longer optimizer.warmup_steps may help')
    if fault:
      logging.warning('%s; its update is left out', fault)
      metrics = jax.tree.map(np.zeros_like, metrics)
    self._sums = add(self._sums, metrics)
    self._bar.update()
    if step % self._log_every == 0 or step == self._num_steps:
      self._write(step)

  def _write(self, step: int) -> None:
    values = {name: float(mean.compute()) for name, mean in self._sums.items()}
    seconds = self._seconds
    if step - len(seconds) + 1 == self._first_step and len(seconds) > 1:
      seconds = seconds[1:]  # The first step's time is the compiler's.
    step_seconds = sum(seconds) / len(seconds)
    waited = self._read_seconds[:len(self._seconds)]
    rate = self._rows_per_step / step_seconds
    if self._peak_seconds is not None:
      values['mfu'] = self._peak_seconds / step_seconds
    self._writer.write(step, values | {
        'train/learning_rate': float(self._schedule(step - 1)),
        'examples_per_second': rate, 'step_seconds': step_seconds,
        'read_seconds': sum(waited) / len(waited)})
    self._bar.set_postfix_str(
        f'loss {values["train/loss"]:.3f}, {rate:,.0f} examples/s'
        + (f', MFU {values["mfu"]:.0%}' if 'mfu' in values else ''))
    self._sums, self._seconds = {}, []
    # The step that is under way has read its rows already.
    self._read_seconds = self._read_seconds[len(waited):]


def _not_finite(step: int, metrics: Metrics,
                rows: Mapping[str, batch_lib.Batch]) -> str:
  """Returns what is not finite, with the batch's examples; '' = nothing."""
  watched = {name: float(mean.compute()) for name, mean in metrics.items()
             if name.endswith('/loss') or name == 'train/gradient_norm'}
  if all(math.isfinite(value) for value in watched.values()):
    return ''
  values = ', '.join(f'{name} = {value:g}' for name, value in watched.items())
  examples = '; '.join(f'{name}: {_example_ids(batch)}'
                       for name, batch in sorted(rows.items()))
  return (f'step {step}: a loss or gradient is not finite ({values}), in the '
          f'batch {examples}')


def _example_ids(batch: batch_lib.Batch) -> str:
  """Returns a batch's rows in words: pictures by id, texts by checksum."""
  if batch.regions is not None:
    ids = [str(number) for number in np.asarray(batch.regions.image_id_B)]
  else:
    ids = [f'{zlib.crc32(np.ascontiguousarray(row).tobytes()):08x}'
           for row in np.asarray(batch.token_ids_BL)]
  return ' '.join(ids)
