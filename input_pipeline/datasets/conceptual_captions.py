"""Conceptual Captions as microsoft/M3P has it, as it was published, or fetched.

`--raw_dir` holds (in `uvl_captions/` or itself) `google.csv` and, if there is
one, `google.valid.csv`: apart by tabs, with a column `caption`; or
`Train_GCC-training.tsv` and `Validation_GCC-1.1.0-Validation.tsv`: caption,
tab, URL, with a header or without. A row's number, from 0, is the number in its
image's id (`valid_` stands before it in the second table).

Where there is no table, `--raw_dir` is the `--output_folder` of img2dataset,
which may have fetched any captioned pictures: its tars, TFRecords or folders
are read as they lie, those below `validation/` or `test/` (or `val/`, `dev/`)
as that split. Here a picture's id is its key: the number of its row where
shards have 10,000 of them. Links that gave no picture are counted in the
manifest.
"""

from collections.abc import Iterator, Mapping
import pathlib

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _archives
from input_pipeline.datasets import _readers

_FOLDERS = ('', 'uvl_captions/', 'dataset/')


class Builder(_readers.Builder):
  """3.3 million images, read row by row."""
  # Split → names of its table. The first must be there.
  tables: Mapping[str, tuple[str, ...]] = {
      'train': ('google.csv', 'Train_GCC-training.tsv',
                'Train-GCC-training.tsv'),
      'validation': ('google.valid.csv', 'Validation_GCC-1.1.0-Validation.tsv')}

  def items(self) -> Iterator[_readers.Item]:
    tables = {split: text_files.find_or_none(self.folder, *(
        folder + name for name in names for folder in _FOLDERS))
              for split, names in self.tables.items()}
    shards = _archives.shards(self.folder) if not tables['train'] else []
    if not shards and not tables['train']:
      text_files.find(self.folder, *self.tables['train'])  # Names it.
    self.note('dead_links', _archives.failures(self.folder) if shards else {})
    parts = [self._rows(path, split) for split, path in tables.items()
             if path and self.language('en', path)]
    by_split: dict[str, list[pathlib.Path]] = {}
    for shard in shards:
      by_split.setdefault(_readers.SPLITS.get(
          shard.relative_to(self.folder).parts[0], 'train'), []).append(shard)
    parts += [self._pictures(*found) for found in by_split.items()]
    return _readers.spread(parts, self.options.limit)

  def _rows(self, path: pathlib.Path, split: str) -> Iterator[_readers.Item]:
    prefix = '' if split == 'train' else 'valid_'
    for row, caption in enumerate(_captions(path)):
      yield self.item(f'{prefix}{row}.jpg', split, [('en', caption)],
                      image_id=f'{prefix}{row}')

  def _pictures(self, split: str,
                shards: list[pathlib.Path]) -> Iterator[_readers.Item]:
    language = (*self.options.languages, 'en')[0]
    for shard in shards:
      for key, path, span, caption in _archives.samples(shard):
        name = key if split == 'train' else f'{split}_{key}'
        yield _readers.Item(
            name, path, split, name,
            [(language, caption)] if caption.strip() else [], span)


def _captions(path: pathlib.Path) -> Iterator[str]:
  """Yields the caption of each row; '' where it is empty or too short.

  The file is a list of captions (`.txt`); or a table apart by tabs, with a
  column `caption`, or without a header: caption and URL. A line is a row,
  whatever quotes it holds: a quote which nobody closes shifts no image.
  """
  found = text_files.lines(path)
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
