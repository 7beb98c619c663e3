"""Tables of regions: a line an image, fields apart by tabs, arrays in base64.

The csv module refuses such long fields, and a whole file fits in no memory:
lines are found by their offsets and read one at a time.
"""

from collections.abc import Iterator, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields

_BUFFER_BYTES = 2**20
# Columns → the format they are.
_FORMATS = {6: 'butd_tsv', 10: 'lxmert_tsv'}


class Reader(contract.Reader):
  """A table with the columns of a format.

  Attributes:
    columns: their names, in order; overridden.
  """
  columns: Sequence[str] = ()

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = open(path, 'rb')  # noqa: SIM115 — closed by `close`.
    found = 1 + self._file.readline(contract.MAX_BYTES).count(b'\t')
    if found != len(self.columns):
      self.close()
      other = _FORMATS.get(found)
      hint = f'; that is --features_format={other}' if other else ''
      raise errors.UserError(
          f'{path}: {found} columns in row 1; allowed: {len(self.columns)} '
          f'({" ".join(self.columns)}){hint}')

  def entries(self) -> Iterator[contract.Entry]:
    with open(self.path, 'rb', buffering=_BUFFER_BYTES) as file:
      start = 0
      for row, line in enumerate(
          iter(lambda: file.readline(contract.MAX_BYTES), b''), start=1):
        if len(line) == contract.MAX_BYTES:
          raise errors.UserError(
              f'{self.path}: row {row} is longer than {contract.MAX_BYTES:,} '
              'bytes')
        if line.strip():
          name, tab, _ = line.partition(b'\t')
          # Names that are no UTF-8 stay apart; a row without a tab has none.
          yield contract.Entry(
              name.decode('utf-8', 'surrogateescape').strip() if tab else '',
              [row, start, len(line)])
        start += len(line)

  def load(self, place: Any) -> contract.ImageRegions:
    _, start, size = place
    line = os.pread(self._file.fileno(), size, start).rstrip(b'\r\n')
    values = line.split(b'\t')
    if len(values) != len(self.columns):
      raise contract.RowError(
          'wrong number of columns',
          f'found {len(values)}; allowed: {len(self.columns)}')
    return self.decode(fields.Fields(dict(zip(
        self.columns, values, strict=True))))

  def decode(self, row: fields.Fields) -> contract.ImageRegions:
    """Returns the regions of a row."""
    raise NotImplementedError

  @staticmethod
  def where(place: Any) -> str:
    return f'row {place[0]}'

  def close(self) -> None:
    self._file.close()


def boxes_and_features(row: fields.Fields) -> tuple[np.ndarray, np.ndarray]:
  """Returns float32 [R, 4] and [R, F] of a row with `num_boxes`."""
  count = row.whole('num_boxes')
  return (row.matrix('boxes', rows=count, columns=4),
          row.matrix('features', rows=count))
