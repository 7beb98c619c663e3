"""Checkpoints on a disk: the best one stays, and a full disk is told."""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib

from input_pipeline import errors

VALIDATION = 'validation.json'
# How the system, or the library that writes arrays, says it.
_FULL = ('No space left', 'ENOSPC', 'RESOURCE_EXHAUSTED', 'File too large',
         'EFBIG', 'Disk quota exceeded', 'EDQUOT')


def best(folder: pathlib.Path) -> tuple[int, float] | None:
  """Returns (step, loss) of the checkpoint with the lowest validation loss.

  None where none was validated.
  """
  losses = {}
  for path in folder.glob(f'*/{VALIDATION}'):
    if path.parent.name.isdecimal():
      losses[int(path.parent.name)] = json.loads(path.read_text())['loss']
  if not losses:
    return None
  # The newest of equals.
  step = min(losses, key=lambda step: (losses[step], -step))
  return step, losses[step]


def is_best(folder: pathlib.Path, loss: float) -> bool:
  """Returns whether no checkpoint has a loss as low as this."""
  found = best(folder)
  return found is None or loss < found[1]


@dataclasses.dataclass
class KeepBest:
  """Keeps the best checkpoint, whatever its age."""
  folder: pathlib.Path

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Returns which checkpoints stay; the interface is Orbax's."""
    del context
    found = best(self.folder)
    return [found is not None and info.step == found[0]
            for info in checkpoints]


@contextlib.contextmanager
def told_when_full(folder: pathlib.Path) -> Iterator[None]:
  """Turns a full disk into an error that says so.

  Raises:
    UserError: the disk was full.
  """
  try:
    yield
  except Exception as error:
    if not any(word in str(error) for word in _FULL):
      raise
    whole = sorted(int(path.name) for path in folder.iterdir()
                   if path.name.isdecimal()) if folder.is_dir() else []
    kept = ('the checkpoints of steps '
            f'{", ".join(map(str, whole))} are whole' if whole
            else 'there is no checkpoint yet')
    raise errors.UserError(
        f'{folder}: the disk is full, a checkpoint could not be saved '
        f'({str(error).strip().splitlines()[0][:200]}); {kept}. Make room, or '
        'keep fewer (keep_checkpoints); the same command goes on from there'
    ) from error
