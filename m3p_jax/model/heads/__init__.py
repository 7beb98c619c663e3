"""Heads that tasks bring with them, a file each.

A file has a `Head`, a module that maps hidden states [B, P, D], of each row the
P that its task reads, to float32 [B, X], the numbers that it asks for. A model
has one for each such task, by the task's name: they are its `config.heads`.
"""

import importlib
import pkgutil
from typing import NamedTuple

from flax import linen as nn

from input_pipeline import errors


class Kind(NamedTuple):
  """A head of a geometry.

  Attributes:
    name: its task's.
    file: of this folder.
    outputs: X.
    inputs: pictures of a row of its task; 1 where rows have none.
  """
  name: str
  file: str
  outputs: int
  inputs: int


def make(kind: Kind, config, options) -> nn.Module:
  """Returns the module of a head; config and options as of `M3P`.

  Raises:
    UserError: no such file.
  """
  check(kind.name, kind.file)
  module = importlib.import_module(f'{__name__}.{kind.file}')
  return module.Head(config, options, kind.outputs, kind.inputs)


def check(name: str, file: str) -> None:
  """Raises UserError where the head of a task has no file here."""
  files = [found.name for found in pkgutil.iter_modules(__path__)]
  if file not in files:
    raise errors.UserError(
        f'the head of task {name!r} is made by m3p_jax/model/heads/{file}.py, '
        'which is not there: it comes from where its weights were trained. '
        f'There are: {", ".join(files)}')
