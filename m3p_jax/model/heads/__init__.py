"""Heads that tasks bring with them, a file each.

A file has a `Head`, a module that maps hidden states [B, P, D], of each row the
P that its task reads, to float32 [B, X], the numbers that it asks for. A model
has one for each such task, by the task's name: they are its `config.heads`.
"""

import importlib
from typing import NamedTuple

from flax import linen as nn


class Kind(NamedTuple):
  """A head of a geometry.

  Attributes:
    name: its task's.
    file: of this folder.
    outputs: X.
    inputs: P.
  """
  name: str
  file: str
  outputs: int
  inputs: int


def make(kind: Kind, config, options) -> nn.Module:
  """Returns the module of a head; config and options as of `M3P`."""
  module = importlib.import_module(f'{__name__}.{kind.file}')
  return module.Head(config, options, kind.outputs, kind.inputs)
