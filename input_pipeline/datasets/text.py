"""Plain text for masked words: one folder or file a language.

`--raw_dir` holds `<language>/` with any number of files below it, or
`<language>.txt` (or `.jsonl`, or `.gz` of these). A file is plain text, a
paragraph a line, or WikiExtractor's JSON lines with `text`. Split by document:
1 % each for validation and test; in plain text, a line is a document.
"""

from collections.abc import Iterable, Iterator
import itertools
import pathlib
import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import text_files
from input_pipeline.datasets import _readers

# Source: Unicode's UAX 29, Sentence_Break = STerm, ATerm and SContinue.
_STOPS = (
    '!?։؝؞؟۔܀-܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕᠃᠉᥄᥅᪨-᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇-⁉⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯'
    '꧈꧉꩝-꩟꫰꫱꯫﹖﹗！？｡')
_DOTS = '.․﹒．'
_GOES_ON = ',-:;՝،߸᠂᠈–—、︐︑︓︱︲﹐﹑﹕﹘﹣，－：､'
_END = re.compile(rf'([{_STOPS}{_DOTS}]+)["\'”’»›)\]}}」』】〉》）］｝｣]*(\s*)')
_SKIPPED = re.compile(rf'[^{_STOPS}{_DOTS}]*?(?=[^\W\d_])')

# (language as the data call it, place in ids, (name, text) of each document).
Source = tuple[str, str, Iterable[tuple[str, str]]]
_FILE = re.compile(r'\.(txt|jsonl?)(\.gz)?$')


def sentences(text: str) -> list[str]:
  """Returns the sentences of a paragraph, by the rules of Unicode's UAX 29.

  Behind `!`, `?` and their like a sentence ends, unless a comma or another mark
  goes on. Behind a dot it also goes on in a number, between the letters of
  an abbreviation, and before a small letter.

  >>> sentences('It has 3.5 m, e.g. in the U.S. It is.')
  ['It has 3.5 m, e.g. in the U.S.', 'It is.']
  """
  found, start = [], 0
  for match in _END.finditer(text):
    end = match.end()
    if end < len(text) and not _goes_on(text, match):
      found.append(text[start:end].strip())
      start = end
  return [piece for piece in (*found, text[start:].strip()) if piece]


def _goes_on(text: str, match: re.Match[str]) -> bool:
  marks, space = match.groups()
  after = text[match.end()]
  if after in _GOES_ON:
    return True
  if marks.strip(_DOTS):  # A stop among them.
    return False
  if not space and (after.isdigit() or (
      after.isupper() and text[match.start() - 1:match.start()].isalpha())):
    return True
  letter = _SKIPPED.match(text, match.end())
  return bool(letter) and text[letter.end()].islower()


def _documents(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  lines = text_files.lines(path)
  first = next(lines, '')
  if first.startswith('<doc '):
    raise errors.UserError(
        f'{path}:1: found {first!r:.80}; allowed: what WikiExtractor writes '
        'with --json')
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

  def sources(self, folder: pathlib.Path) -> Iterator[Source]:
    """Yields what there is below `--raw_dir`."""
    for path in text_files.files(folder, '*'):
      place = path.relative_to(folder)
      if len(place.parts) > 1 or _FILE.search(path.name):
        yield (place.parts[0].split('.')[0], place.as_posix(),
               _documents(path))

  def language(self, theirs: str, place: str) -> str:
    """Returns the public code of a language, '' = it is left out."""
    code = languages.resolve(theirs)
    if not code:
      raise errors.UserError(f'{self.options.raw_dir}/{place}: unknown '
                             f'language {theirs!r}')
    return code

  def items(self) -> Iterator[builder.TextItem]:
    folder = pathlib.Path(self.options.raw_dir or '.')
    if not self.options.raw_dir or not folder.is_dir():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; allowed: a folder with a '
          'folder or .txt file for each language')
    wanted = self.options.languages
    found: dict[str, list[Source]] = {}
    for source in self.sources(folder):
      code = self.language(*source[:2])
      if code and (not wanted or code in wanted):
        found.setdefault(code, []).append(source)
    return _readers.spread([_items(code, parts) for code, parts in
                            found.items()], self.options.limit)


def _items(code: str, parts: list[Source]) -> Iterator[builder.TextItem]:
  for _, place, documents in parts:
    for name, text in documents:
      # Names of files and of documents may be no UTF-8.
      document = f'{place}/{name}'.encode('utf-8', 'backslashreplace').decode()
      split = _readers.split_by_hash(document, validation=1, test=1)
      for number, sentence in enumerate(itertools.chain.from_iterable(
          map(sentences, text.split('\n')))):
        yield builder.TextItem(
            text_id=f'{document}/{number}', split=split, language=code,
            text=sentence)
