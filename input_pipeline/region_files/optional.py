"""Libraries that only some formats need."""

import importlib
from types import ModuleType

from input_pipeline import errors


def load(name: str) -> ModuleType:
  """Returns the library.

  Raises:
    UserError: it is not installed; gives the command that installs it.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise errors.UserError(
        f'this format needs {name}, which is not installed; run: python -m pip '
        'install --requirement=requirements-formats.txt '
        '--constraint=constraints.txt') from error
