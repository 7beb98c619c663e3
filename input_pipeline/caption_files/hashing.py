"""Splits by a stable hash, for datasets that come without."""

import zlib


def split(group: str, *, validation: int = 5, test: int = 5) -> str:
  """Returns the split of a group: the same on every machine, for ever.

  Args:
    group: pictures of a group stay in one split.
    validation: per cent of the groups.
    test: per cent of the groups.
  """
  place = zlib.crc32(group.encode()) % 100
  if place < test:
    return 'test'
  return 'validation' if place < test + validation else 'train'
