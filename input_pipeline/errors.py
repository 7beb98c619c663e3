"""How a user's mistake reaches the user: one line, no stack trace."""

from collections.abc import Callable, Sequence
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

  app.run(wrapped)
