"""Plain text and Wikipedia, for masked words: one folder or file a language.

`--raw_dir` holds `<language>/` with any number of files below it, or
`<language>.txt` (or `.txt.gz`). A file is plain text, a paragraph a line, or
WikiExtractor's JSON lines with `text`. Split by document: 1 % each for
validation and test; in plain text, a line is a document.
"""

from collections.abc import Iterator
import itertools
import pathlib

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import text_files
from input_pipeline.datasets import _readers
from input_pipeline.datasets import udhr


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  for path in text_files.files(folder, '*'):
    if path.parent != folder:
      yield path.relative_to(folder).parts[0], path
    elif path.name.endswith(('.txt', '.txt.gz')):
      yield path.name.split('.')[0], path


def _documents(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  lines = text_files.lines(path)
  first = next(lines, '')
  is_json = first.startswith('{') and '"text"' in first
  for number, line in enumerate(itertools.chain([first], lines), start=1):
    if line.strip() and is_json:
      where = f'{path}:{number}'
      row = text_files.check_keys(
          text_files.parse(line, where, halves=True), ('text',), where)
      yield str(row.get('id', number)), str(row['text'])
    elif line.strip():
      yield str(number), line


class Builder(builder.TextBuilder):
  """Sentences of the documents."""

  def items(self) -> Iterator[builder.TextItem]:
    folder = pathlib.Path(self.options.raw_dir or '.')
    if not self.options.raw_dir or not folder.is_dir():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; allowed: a folder with a '
          'folder or .txt file for each language')
    for theirs, path in _files(folder):
      code = languages.resolve(theirs)
      if not code:
        raise errors.UserError(f'{path}: unknown language {theirs!r}')
      if self.options.languages and code not in self.options.languages:
        continue
      place = path.relative_to(folder).as_posix()
      for name, text in _documents(path):
        # Names of files and of documents may be no UTF-8.
        document = f'{place}/{name}'.encode(
            'utf-8', 'backslashreplace').decode()
        split = _readers.split_by_hash(document, validation=1, test=1)
        sentences = (sentence for line in text.split('\n')
                     for sentence in udhr.sentences(line))
        for number, sentence in enumerate(sentences):
          yield builder.TextItem(
              text_id=f'{document}/{number}', split=split, language=code,
              text=sentence)
