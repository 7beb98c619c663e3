"""An array against the stored one, and what difference is allowed."""

from typing import Any, NamedTuple

import numpy as np


class Line(NamedTuple):
  """One stored array against ours.

  Attributes:
    name: of the array.
    absolute: greatest absolute difference; NaN without a counterpart.
    relative: greatest difference as a share of the stored array's largest
      entry.
    tolerance: what is allowed, as `kind` says.
    kind: 'absolute' or 'relative'.
  """
  name: str
  absolute: float
  relative: float
  tolerance: float
  kind: str

  @property
  def passes(self) -> bool:
    """Whether the difference is allowed; NaN is not."""
    return getattr(self, self.kind) <= self.tolerance

  def __str__(self) -> str:
    if np.isnan(self.absolute):
      return f'FAIL {self.name}: no counterpart of its shape'
    return (f'{"ok  " if self.passes else "FAIL"} {self.name}: absolute '
            f'{self.absolute:.1e}, relative {self.relative:.1e}, allowed '
            f'{self.tolerance:.0e} {self.kind}')


def compare(name: str, ours: Any, theirs: np.ndarray,
            mask_BL: np.ndarray | None) -> Line:
  """Returns the line of one array.

  Args:
    name: says the tolerance: losses and gradients are compared relatively.
    ours: None or another shape = no counterpart.
    theirs: stored.
    mask_BL: rows and positions that count; None = all.
  """
  tolerance, kind = 1e-5, 'absolute'
  if name.startswith('loss_'):
    kind = 'relative'
  elif name.startswith('grad'):
    tolerance, kind = 1e-4, 'relative'
  if ours is None or np.shape(ours) != theirs.shape:
    return Line(name, np.nan, np.nan, tolerance, kind)
  difference = np.abs(np.asarray(ours, np.float64) - theirs)
  if mask_BL is not None:
    difference = difference[mask_BL.astype(bool)]
  largest = float(np.abs(theirs).max(initial=0.0)) or 1.0
  absolute = float(difference.max(initial=0.0))
  return Line(name, absolute, absolute / largest, tolerance, kind)
