"""Keeps from the terminal what libraries say of themselves.

TensorFlow's C++ libraries write to stderr about GPUs when it is imported,
before any of its settings is read.
"""

from collections.abc import Iterator
import contextlib
import importlib.abc
import importlib.machinery
import logging as standard_logging
import os
import pathlib
import sys
import tempfile

from absl import logging
import tqdm

_NAME = 'tensorflow'


@contextlib.contextmanager
def stderr_on_failure() -> Iterator[None]:
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


@contextlib.contextmanager
def logs() -> Iterator[None]:
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


class _Finder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow as ever, and runs its import behind a closed door."""

  def find_spec(self, fullname, path=None, target=None):
    if fullname != _NAME:
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec and spec.loader:
      execute = spec.loader.exec_module

      def quietly(module):
        # Not before: others only ask whether there is a TensorFlow.
        sys.meta_path.remove(self)
        with stderr_on_failure():
          execute(module)

      spec.loader.exec_module = quietly  # type: ignore[method-assign]
    return spec


def install() -> None:
  """Makes the first import of TensorFlow silent, unless it is over."""
  if _NAME not in sys.modules and not any(
      isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
