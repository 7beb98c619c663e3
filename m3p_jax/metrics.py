"""Weighted means that merge, and the files they are written to."""

from collections.abc import Mapping
import importlib.util
import json
import os
import pathlib

from flax import struct
import jax


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


class Writer:
  """Writes metrics as JSON lines, and for TensorBoard where it is installed.

  Attributes:
    path: the file of JSON lines, one object a step.
  """

  def __init__(self, workdir: pathlib.Path, *, start_step: int):
    """Opens the files; what an interrupted run wrote past its save goes.

    Args:
      workdir: folder of the run; made if absent.
      start_step: the step this run starts from; later lines are dropped, for
        they will be written again.
    """
    self.path = workdir / 'metrics.jsonl'
    self._file = self._tensorboard = None
    if jax.process_index():
      return  # The first process writes for all: metrics are global.
    workdir.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) for line in read(self.path)
             if line['step'] <= start_step]
    draft = self.path.with_suffix('.tmp')
    draft.write_text(''.join(f'{line}\n' for line in lines))
    os.replace(draft, self.path)
    self._file = self.path.open('a')
    if importlib.util.find_spec('tensorboard'):
      from tensorboard import summary  # Optional; TF no longer brings it.
      self._tensorboard = summary.Writer(str(workdir / 'tensorboard'))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes one line: `step` first, then the values by name."""
    if self._file is None:
      return
    values = {name: float(value) for name, value in values.items()}
    self._file.write(json.dumps({'step': step} | values) + '\n')
    self._file.flush()
    if self._tensorboard:
      for name, value in values.items():
        self._tensorboard.add_scalar(name, value, step)
      self._tensorboard.flush()

  def close(self) -> None:
    if self._file:
      self._file.close()
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
