"""How a user's mistake reaches the user: one line, no stack trace."""

from collections.abc import Callable, Sequence
import os
import sys

from absl import app


class UserError(ValueError):
  """A mistake that its user can mend: names the thing, the value, the rule."""


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
