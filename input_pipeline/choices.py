"""How a name out of a closed list is checked."""

from collections.abc import Iterable
import difflib

from input_pipeline import errors


def check(kind: str, value: str, allowed: Iterable[str]) -> None:
  """Checks that `value` is allowed.

  Args:
    kind: what the value names, for the message.
    value: the name found.
    allowed: every name that may stand there.

  Raises:
    UserError: it is not; the message names the nearest allowed one.
  """
  allowed = list(allowed)
  if value in allowed:
    return
  folded = {name.casefold(): name for name in allowed}
  near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.0)
  hint = f'; did you mean {folded[near[0]]!r}?' if near else '.'
  raise errors.UserError(
      f'unknown {kind} {value!r}{hint} There are: '
      f'{", ".join(allowed) or "none"}')
