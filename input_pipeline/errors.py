"""Mistakes that a user can mend, and how a name out of a list is checked."""

from collections.abc import Iterable
import difflib


class UserError(ValueError):
  """A mistake that its user can mend: names the thing, the value, the rule."""


class RowError(UserError):
  """One item that cannot be used; the others can.

  Attributes:
    reason: two or three words, to count skipped items by.
    detail: what was found.
  """

  def __init__(self, reason: str, detail: str = ''):
    super().__init__(f'{reason}: {detail}' if detail else reason)
    self.reason = reason
    self.detail = detail

  def __reduce__(self):
    # Worker processes hand the error back by pickling it.
    return type(self), (self.reason, self.detail)


def check_choice(kind: str, value: str, allowed: Iterable[str]) -> None:
  """Raises UserError where `value` is not allowed; it names the nearest.

  Args:
    kind: what the value names, for the message.
  """
  allowed = list(allowed)
  if value in allowed:
    return
  folded = {name.casefold(): name for name in allowed}
  near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.0)
  hint = f'; did you mean {folded[near[0]]!r}?' if near else '.'
  raise UserError(f'unknown {kind} {value!r}{hint} There are: '
                  f'{", ".join(allowed) or "none"}')
