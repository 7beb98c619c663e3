"""How a user's mistake reaches the user: one line, no stack trace."""

from collections.abc import Callable, Sequence
import os
import sys

from absl import app


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


def run_main(main: Callable[[Sequence[str]], None]) -> None:
  """Runs an absl main; a `UserError` becomes one line and exit status 2."""

  def wrapped(argv: Sequence[str]) -> None:
    try:
      main(argv)
    except UserError as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)
    except BrokenPipeError:
      # `| head` has read enough. Python would fail once more at exit.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

  app.run(wrapped)
