"""How a user's mistake reaches the user: one line, no stack trace."""

from collections.abc import Callable, Sequence
import difflib
import errno
import functools
import io
import os
import sys
from typing import Any

from absl import app
from absl import flags

from input_pipeline import quiet

# What a system refuses for reasons that lie outside the program.
_REFUSED = frozenset((
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.ENOTDIR, errno.ENAMETOOLONG))


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


def one_line(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the function with a user's mistake as one line, exit status 2.

  What a terminal of another encoding has no character for is printed as its
  number: a result is not lost for a letter.
  """

  @functools.wraps(function)
  def wrapped(*args):
    if isinstance(sys.stdout, io.TextIOWrapper):
      sys.stdout.reconfigure(errors='backslashreplace')
    try:
      return function(*args)
    except (UserError, flags.Error) as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)
    except OSError as error:
      if error.errno not in _REFUSED:
        raise
      print(f'error: {error.filename or "a file"}: {error.strerror}',
            file=sys.stderr)
      sys.exit(2)

  return wrapped


def run_main(main: Callable[[Sequence[str]], None]) -> None:
  """Runs an absl main; a user's mistake becomes one line, exit status 2."""

  def wrapped(argv: Sequence[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
      quiet.show_own_logs()
    try:
      main(argv)
    except BrokenPipeError:
      # `| head` has read enough. Python would fail once more at exit.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

  app.run(one_line(wrapped), flags_parser=one_line(parse_flags))


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Returns the arguments that are no flags; parses the others.

  Raises:
    UserError: a flag that does not exist, a choice that it does not have, or
      bytes that are no UTF-8.
  """
  for argument in argv:
    try:
      argument.encode()
    except UnicodeEncodeError as error:
      raise UserError(f'{argument!a} is not UTF-8; allowed: text and '
                      'paths in UTF-8') from error
  try:
    return flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    raise UserError(unknown_flag(error.flagname)) from error
  except flags.IllegalFlagValueError as error:
    raise UserError(_wrong_value(str(error).strip())) from error


def unknown_flag(name: str, others: Sequence[str] = ()) -> str:
  """Returns the message for a flag that does not exist.

  Args:
    name: as it was written, without dashes.
    others: flags that are nearer than those of this program's own.
  """
  # Those of this program: absl has dozens of its own.
  ours = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(
      sys.argv[0])}
  near = [*others, *difflib.get_close_matches(name, ours, n=1)]
  hint = f'did you mean --{near[0]}? ' if near else ''
  return f'there is no flag --{name}; {hint}--help lists all'


def _wrong_value(message: str) -> str:
  """Returns absl's message on one line, with the nearest choice if any."""
  first, *rest = message.split('\n')
  if rest:
    # config_flags puts the whole traceback of a config file into it.
    kind, _, told = rest[-1].partition(': ')
    return told if kind.endswith(UserError.__name__) else (
        f'{first.split(": Error")[0]}: {told}')
  flag, _, choices = message.removeprefix('flag --').partition(
      ': value should be one of <')
  name, _, value = flag.partition('=')
  near = difflib.get_close_matches(
      value.casefold(), choices.rstrip('>').split('|'), n=1)
  hint = f'; did you mean --{name}={near[0]}?' if near and choices else ''
  return message + hint
