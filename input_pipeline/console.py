"""The terminal: flags and mistakes, progress, and what libraries may say.

A user's mistake is one line and exit status 2. Results are on stdout; progress
and logs are on stderr.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import difflib
import errno
import functools
import importlib.abc
import importlib.machinery
import io
import logging as standard_logging
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
from absl import logging
import tqdm

from input_pipeline import errors

# What a system refuses for reasons that lie outside the program.
_REFUSED = frozenset((
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.ENOTDIR, errno.ENAMETOOLONG))
# Work that ends before says nothing where nobody watches.
SECONDS_PER_LINE = 30.0
_LINE = ('{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {elapsed} '
         'gone, {remaining} left{postfix}')
_BAR = ('{l_bar}{bar}| {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, '
        '{remaining} left{postfix}')


def run_main(main: Callable[[Sequence[str]], None]) -> None:
  """Runs an absl main; a user's mistake becomes one line, exit status 2."""

  def wrapped(argv: Sequence[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
      show_own_logs()
    try:
      main(argv)
    except BrokenPipeError:
      # `| head` has read enough. Python would fail once more at exit.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

  app.run(one_line(wrapped), flags_parser=one_line(parse_flags))


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
    except (errors.UserError, flags.Error) as error:
      message = str(error)
    except OSError as error:
      if error.errno not in _REFUSED:
        raise
      message = f'{error.filename or "a file"}: {error.strerror}'
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)

  return wrapped


def check_flags(argv: Sequence[str], required: Sequence[str]) -> None:
  """Raises UserError at an argument that is no flag, or at a missing flag."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  for name in required:
    if not flags.FLAGS[name].value:
      raise errors.UserError(f'--{name} is missing')


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
      raise errors.UserError(f'{argument!a} is not UTF-8; allowed: text and '
                             'paths in UTF-8') from error
  try:
    return flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    raise errors.UserError(unknown_flag(error.flagname)) from error
  except flags.IllegalFlagValueError as error:
    raise errors.UserError(_wrong_value(str(error).strip())) from error


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
    kind, _, cause = rest[-1].partition(': ')
    return cause if kind.endswith(errors.UserError.__name__) else (
        f'{first.split(": Error")[0]}: {cause}')
  flag, _, choices = message.removeprefix('flag --').partition(
      ': value should be one of <')
  name, _, value = flag.partition('=')
  near = difflib.get_close_matches(
      value.casefold(), choices.rstrip('>').split('|'), n=1)
  hint = f'; did you mean --{name}={near[0]}?' if near and choices else ''
  return message + hint


class _Lines(tqdm.tqdm):
  """Writes whole lines without control characters: for pipes and files."""

  def __init__(self, **options: Any):
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
  """Returns a bar with rate and time left on stderr; in a pipe, lines.

  Args:
    title: what is done; '' = no bar.
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


def show_own_logs() -> None:
  """Shows this project's INFO lines, and of its libraries only warnings."""
  logging.use_absl_handler()  # Notebooks start without it.
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(standard_logging.Formatter(
      '%(levelname).1s %(asctime)s %(message)s', '%H:%M:%S'))
  handler.addFilter(
      lambda record: record.levelno >= standard_logging.WARNING
      or _is_own(record))


@contextlib.contextmanager
def hold_library_logs() -> Iterator[None]:
  """Holds back what libraries log below errors.

  TFDS says what it reads, and warns of its own deprecated names.
  """
  logger = logging.get_absl_logger()

  def is_shown(record: standard_logging.LogRecord) -> bool:
    return record.levelno >= standard_logging.ERROR or _is_own(record)

  logger.addFilter(is_shown)
  try:
    yield
  finally:
    logger.removeFilter(is_shown)


def _is_own(record: standard_logging.LogRecord) -> bool:
  # An environment may lie in the project's folder.
  outside = str(pathlib.Path(tqdm.__file__).parents[1])
  return (record.pathname.startswith(str(pathlib.Path(__file__).parents[1]))
          and not record.pathname.startswith(outside))


@contextlib.contextmanager
def hold_stderr() -> Iterator[None]:
  """Holds back what the process writes to stderr; shows it after an error."""
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    except BaseException:
      held.seek(0)
      os.write(kept, held.read())
      raise
    finally:
      os.dup2(kept, 2)
      os.close(kept)


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow as ever, and runs its import with stderr held back.

  Its C++ libraries write about GPUs before any of its settings is read.
  """

  def find_spec(self, fullname, path=None, target=None):
    if fullname != 'tensorflow':
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec and spec.loader:
      execute = spec.loader.exec_module

      def quietly(module):
        # Not before: others only ask whether there is a TensorFlow.
        sys.meta_path.remove(self)
        with hold_stderr():
          execute(module)

      spec.loader.exec_module = quietly  # type: ignore[method-assign]
    return spec


def quieten_tensorflow() -> None:
  """Makes the first import of TensorFlow silent, unless it is over."""
  if 'tensorflow' not in sys.modules and not any(
      isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _TensorFlowFinder())
