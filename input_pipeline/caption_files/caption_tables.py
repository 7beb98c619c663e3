"""Tables of web captions: a row an image, whose id is the row's number.

Read row by row: there are millions.
"""

from collections.abc import Iterator
import csv
import pathlib

from input_pipeline import errors
from input_pipeline.building import builder as builder_lib
from input_pipeline.caption_files import annotations

_MAX_FIELD_BYTES = 2**20


def items(builder: annotations.Builder, files: dict[str, tuple[str, str]],
          ) -> Iterator[builder_lib.ImageItem]:
  """Yields the items of tables with a column `caption`, apart by tabs.

  Args:
    builder: whose folder and languages are meant.
    files: file name → (split, what stands before the row in an image's id);
      the first must be there.
  """
  for number, (name, (split, prefix)) in enumerate(files.items()):
    path = annotations.find_or_none(builder.folder, name)
    if path is None and not number:
      path = annotations.find(builder.folder, name)
    if path is not None and builder.language('en', path):
      for row, caption in enumerate(_captions(path)):
        yield builder.item(f'{prefix}{row}.jpg', split, [('en', caption)],
                           image_id=f'{prefix}{row}')


def _captions(path: pathlib.Path) -> Iterator[str]:
  """Yields a table's captions.

  Raises:
    UserError: it has no such column, or a row is short.
  """
  csv.field_size_limit(_MAX_FIELD_BYTES)
  # Python's reader wants the line ends that may stand inside of a field.
  table = csv.reader((f'{line}\n' for line in annotations.lines(path)),
                     delimiter='\t')
  try:
    header = next(table, [])
    if 'caption' not in header:
      raise errors.UserError(
          f'{path}: columns {", ".join(header)!r:.80}; one must be "caption"')
    column = header.index('caption')
    for row in table:
      if len(row) <= column:
        raise errors.UserError(
            f'{path}:{table.line_num}: {len(row)} columns; allowed: '
            f'{len(header)}')
      yield row[column]
  except csv.Error as error:
    raise errors.UserError(f'{path}:{table.line_num}: {error}') from error
