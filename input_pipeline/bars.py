"""Progress of long work: a bar in a terminal, a line now and then elsewhere."""

import shutil
import sys
import time
from typing import Any

import tqdm

# Work that ends before says nothing where nobody watches.
SECONDS_PER_LINE = 30.0
_LINE = ('{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {elapsed} '
         'gone, {remaining} left{postfix}')
_BAR = ('{l_bar}{bar}| {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, '
        '{remaining} left{postfix}')


class _Lines(tqdm.tqdm):
  """Writes whole lines without control characters: for pipes and files."""

  def __init__(self, **options: Any):
    """Args: as tqdm's."""
    self._said = time.monotonic()
    options |= {'mininterval': SECONDS_PER_LINE, 'bar_format': _LINE}
    super().__init__(**options)

  def display(self, msg: str | None = None, pos: int | None = None) -> None:
    del msg, pos
    now = time.monotonic()
    if self.n > self.initial and now - self._said >= SECONDS_PER_LINE:
      self._said = now
      print(self, file=self.fp, flush=True)

  def close(self) -> None:
    # Without its printer tqdm leaves out the last bar and the line's end.
    self.sp = None
    super().close()


def bar(title: str, total: int | None = None, *, unit: str,
        **options: Any) -> tqdm.tqdm:
  """Returns a progress bar with rate and time left, on stderr.

  Args:
    title: what is done.
    total: steps in all; None = not known.
    unit: what is counted, in the plural.
    **options: of tqdm.
  """
  options |= {'desc': title, 'total': total, 'unit': f' {unit}',
              'file': sys.stderr,
              'disable': options.get('disable', False) or not title}
  if sys.stderr.isatty():
    # A terminal that tells no size is taken for one of 80 by 24.
    size = shutil.get_terminal_size()
    return tqdm.tqdm(mininterval=0.5, bar_format=_BAR, ncols=size.columns,
                     nrows=size.lines, **options)
  return _Lines(**options)
