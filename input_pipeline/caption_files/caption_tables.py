"""Tables of web captions: a row an image, whose id is the row's number.

Read row by row: there are millions. A line is a row, whatever quotes it holds,
so that a quote which nobody closes shifts no image.
"""

from collections.abc import Iterator, Mapping, Sequence
import pathlib

from input_pipeline import builder as builder_lib
from input_pipeline import errors
from input_pipeline.caption_files import annotations

_FOLDERS = ('', 'uvl_captions/', 'dataset/')


def items(builder: annotations.Builder,
          files: Mapping[str, tuple[str, Sequence[str]]],
          ) -> Iterator[builder_lib.ImageItem]:
  """Yields the items of tables.

  Args:
    builder: whose folder and languages are meant.
    files: what stands before the row in an image's id → (split, names of the
      file); the first file must be there.
  """
  for number, (prefix, (split, names)) in enumerate(files.items()):
    find = annotations.find_or_none if number else annotations.find
    path = find(builder.folder, *(
        folder + name for name in names for folder in _FOLDERS))
    if path is not None and builder.language('en', path):
      for row, caption in enumerate(_captions(path)):
        yield builder.item(f'{prefix}{row}.jpg', split, [('en', caption)],
                           image_id=f'{prefix}{row}')


def _captions(path: pathlib.Path) -> Iterator[str]:
  """Yields the caption of each row; '' where it is empty or too short.

  The file is a list of captions (`.txt`); or a table apart by tabs, with a
  column `caption`, or without a header: caption and URL.

  Raises:
    UserError: it is none of them.
  """
  found = annotations.lines(path)
  if path.name.removesuffix('.gz').endswith('.txt'):
    yield from found
    return
  first = next(found, '')
  header, column = first.split('\t'), 0
  if 'caption' in header:
    column = header.index('caption')
  elif len(header) == 2 and header[1].startswith('http'):
    yield _unquote(header[0])
  else:
    raise errors.UserError(
        f'{path}: columns {", ".join(header)!r:.80}; one must be "caption"')
  empty = 0  # Lines that end the file are no rows.
  for line in found:
    if not line:
      empty += 1
      continue
    yield from [''] * empty
    empty = 0
    fields = line.split('\t')
    yield _unquote(fields[column]) if column < len(fields) else ''


def _unquote(field: str) -> str:
  """Returns a field as it was before a writer of CSV put it into quotes."""
  inner = field[1:-1]
  is_quoted = (field[:1] == field[-1:] == '"' and '""' in inner
               and '"' not in inner.replace('""', ''))
  return inner.replace('""', '"') if is_quoted else field
