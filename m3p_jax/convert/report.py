"""What became of each tensor of a conversion."""

from collections.abc import Sequence
from typing import Any, NamedTuple

KINDS = {'used': 'used', 'unused': 'kept aside, read by no forward pass',
         'fresh': 'not there, initialised', 'left out': 'left out'}


class Line(NamedTuple):
  """One tensor, or one parameter that no tensor gave.

  Attributes:
    kind: a key of `KINDS`.
    name: of the tensor; of our parameter where it is fresh.
    shape: of it.
    note: what is special about it; '' if nothing.
  """
  kind: str
  name: str
  shape: tuple[int, ...]
  note: str = ''


def text(lines: Sequence[Line]) -> str:
  """Returns the report, a section a kind."""
  parts = []
  for kind, title in KINDS.items():
    of_kind = [line for line in lines if line.kind == kind]
    if not of_kind:
      continue
    parts.append(f'{len(of_kind)} {title}:')
    parts += [f'  {line.name} {list(line.shape)}'
              + (f': {line.note}' if line.note else '') for line in of_kind]
  return '\n'.join(parts)


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
  """Returns the lines as JSON holds them."""
  return [line._asdict() | {'shape': list(line.shape)} for line in lines]
