"""Reads a FreeDict dictionary in dictd's format into clean pairs of phrases.

A `.index` line is `headword <tab> offset <tab> length` with numbers in base
64; the entry stands at that place of the gzip-compatible `.dict.dz`. The first
line of an entry holds headwords with pronunciation and grammar, the lines
after it translations, glosses, notes and examples, in a layout that differs
from one dictionary to the next.
"""

from collections.abc import Iterator
import gzip
import pathlib
import re
import unicodedata

_BASE64 = {c: i for i, c in enumerate(
    'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')}
MAX_WORDS = 3
_PRONUNCIATION = re.compile(r'(?:(?<=\s)|(?<=\())/+[^/\n]*/+')
_MARKS = re.compile(r'<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}|\*')
_COMPOUND = re.compile(r'<N Comp>.*')
_NUMBER = re.compile(r'\s*(?:[IVX]+\.\s+)?(?:<[^<>]*>\s*)?(\d+\.(?:\s+|$))?')
_NOT_TRANSLATION = re.compile(
    r'\s+(?:"|Note:|Synonyms?:|Antonyms?:|see:|-)|\s*-\s')
_TRAILING_NUMBER = re.compile(r'\s\d+\.$')
# Placeholders ("jemandem", "somebody") and signs of a definition.
_UNFIT = re.compile(
    r'[.:!?"/{}()\[\]<>=+#…;\d@&%]|\bsb\b|\bsth\b|\bsg\b|\bsy\b|\bvki|\bvmi|'
    r'\bvala[mk]i|\betw\b|\bjd[nmr]?s?\b|(?:^|\s)-|-$')
SPELLINGS = str.maketrans({'‐': '-', '‑': '-', '’': "'", '~': ' ',
                              '\u0301': None, '\u00ad': None, '`': "'"})
_ARABIC_WHOLE = frozenset(('الله', 'الآن', 'التي', 'الذي'))
_ARABIC_VOWELS = re.compile('[\u064b-\u0652\u0640\u0670]')
# Letters that a word of the language may hold beside spaces and hyphens.
_SCRIPTS = {
    'ar': '\u0600-\u06ff', 'bg': '\u0400-\u04ff', 'el': '\u0370-\u03ff\u1f00-'
    '\u1fff', 'hi': '\u0900-\u097f', 'ja': '\u3005-\u30ff\u3400-\u9fffー',
    'ru': '\u0400-\u04ff', 'zh_CN': '\u3400-\u9fff'}
_LATIN = "A-Za-z\u00aa-\u024f\u1e00-\u1eff"
# Beside letters and their marks: hyphen, apostrophe, zero-width joiners.
_JOINERS = "' -\u200c\u200d"
_LATIN_LANGUAGES = frozenset((
    'cs', 'de', 'es', 'fi', 'fr', 'hr', 'hu', 'id', 'it', 'nl', 'pl', 'pt',
    'sv', 'tr'))


def read_entries(folder: pathlib.Path, name: str) -> Iterator[str]:
  """Yields the text of each entry of the dictionary `name` once."""
  # A package may hold links to its own files.
  index_path = min(folder.rglob(f'{name}.index'))
  text_path = min(folder.rglob(f'{name}.dict.dz'))
  with gzip.open(text_path) as file:
    text = file.read()
  spans = set()
  with index_path.open(encoding='utf-8', errors='replace') as lines:
    for line in lines:
      headword, offset, length = line.rstrip('\n').split('\t')[:3]
      if not headword.startswith(('00database', '00-database')):
        spans.add((_decode(offset), _decode(length)))
  for start, size in sorted(spans):
    yield text[start:start + size].decode('utf-8', errors='replace')


def read(folder: pathlib.Path, name: str,
         ) -> Iterator[tuple[list[str], list[str]]]:
  """Yields (headwords, translations) of each entry."""
  return map(parse_entry, read_entries(folder, name))


def parse_entry(entry: str) -> tuple[list[str], list[str]]:
  """Returns (headwords, translations) of an entry, raw but without marks."""
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


def clean(text: str, language: str) -> str:
  """Returns `text` ready to be a translation, or '' where it is unfit.

  Unfit are definitions, abbreviations, more than three words and words that
  are not written in the language's script.
  """
  text = unicodedata.normalize('NFC', text.translate(SPELLINGS))
  if language == 'ar':
    text = _strip_arabic_article(_ARABIC_VOWELS.sub('', text))
  elif language == 'hu':
    # The dictionary was made in Latin-1, which lacks the long umlauts.
    text = text.translate(str.maketrans('ôõûÔÕÛ', 'őőűŐŐŰ'))
  text = ' '.join(text.split()).strip(" ,-'")
  if not text or text.count(' ') >= MAX_WORDS or _UNFIT.search(text):
    return ''
  letters = _SCRIPTS.get(
      language, _LATIN if language in _LATIN_LANGUAGES else '')
  is_word = (re.fullmatch(rf"[{letters}' -]+", text) if letters
             else all(_is_letter(character) for character in text))
  return text if is_word else ''


def _is_letter(character: str) -> bool:
  """Returns whether a word of any script may hold the character."""
  return character in _JOINERS or unicodedata.category(character)[0] in 'LM'


def _decode(number: str) -> int:
  value = 0
  for digit in number:
    value = value * 64 + _BASE64[digit]
  return value


def _split(text: str) -> list[str]:
  """Returns the alternatives in a line, without anything in brackets."""
  before = None
  while before != text:
    before, text = text, _MARKS.sub(' ', text)
  text = text.split('. ')[0]
  return [part for part in map(str.strip, re.split('[,;、，،]', text)) if part]


def _strip_arabic_article(text: str) -> str:
  """Returns `text` without "the", which the dictionary sets before nouns."""
  has_article = (text.startswith('ال') and len(text) > 3 and ' ' not in text
                 and text not in _ARABIC_WHOLE)
  return text[2:] if has_article else text
