"""Collects and ranks the translations of English phrases.

Two dictionaries bear witness, English→X and X→English; how common a
translation is decides among what they offer.
"""

import collections
from collections.abc import Mapping, Sequence
import math
import pathlib
import re

from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.dictionary_files import cedict
from input_pipeline.dictionary_files import freedict
from input_pipeline.dictionary_files import mueller

# Languages whose dictionaries cover at least half of the words of Tux Paint.
LANGUAGES = ('ar', 'bg', 'cs', 'de', 'el', 'es', 'fi', 'fr', 'hi', 'hr', 'hu',
             'id', 'it', 'ja', 'nl', 'pl', 'pt', 'ru', 'sv', 'tr', 'zh_CN')
# Beside FreeDict, which has little Russian and no Chinese.
_MORE = {'ru': mueller.PACKAGE, 'zh_CN': cedict.PACKAGE}
# The same pairs as English→German: half a million entries for nothing.
_SKIPPED = ('freedict-deu-eng',)
_READERS = {mueller.PACKAGE: mueller.read, cedict.PACKAGE: cedict.read}
MAX_TRANSLATIONS = 5
MAX_PIECES = 8

# Ranking: how common a translation is, which the places of its pieces in the
# vocabulary approximate (Zipf), how many other English phrases it translates,
# and what the dictionaries say. Chosen by eye on the words of captions.
_FREQUENCY = 0.45
_PER_MEANING = -0.4
_PER_WITNESS = 3.0
_PER_PLACE = -0.6
_INVERSE = 4.0
_FORWARD = 3.0
_WORST = 6.0
_LAST_PLACE = 12
# Their dictionaries list translations by the alphabet or at random.
_UNORDERED = ('de', 'hr', 'hu')

_ENGLISH = re.compile(r"[\w'.&-]{2,}(?: [\w'.&-]+){0,2}")
_LEADING = re.compile(r'^(?:to|a|an|the) (?=\S)')
# Left out: half of the target languages have none.
ARTICLES = ('a', 'an', 'the')
_IRREGULAR_PLURALS = {
    'man': 'men', 'woman': 'women', 'child': 'children', 'mouse': 'mice',
    'foot': 'feet', 'tooth': 'teeth', 'goose': 'geese', 'leaf': 'leaves',
    'wolf': 'wolves', 'knife': 'knives', 'calf': 'calves', 'loaf': 'loaves'}


class Evidence:
  """What two dictionaries say about one translation of an English phrase.

  Attributes:
    witnesses: entries that name the pair.
    forward: its first place among the translations in English→X, or None.
    inverse: its first place among the translations in X→English, or None.
  """
  __slots__ = ('witnesses', 'forward', 'inverse')

  def __init__(self):
    self.witnesses = 0
    self.forward: int | None = None
    self.inverse: int | None = None

  def score(self, ids: Sequence[int], meanings: int) -> float:
    """Returns how good a translation is.

    Args:
      ids: its token ids.
      meanings: English phrases that it translates.
    """
    total = (_PER_MEANING * math.log(meanings) +
             _PER_WITNESS * math.log(self.witnesses) -
             _FREQUENCY * sum(map(math.log, ids)))
    for bonus, place in ((_FORWARD, self.forward), (_INVERSE, self.inverse)):
      if place is not None:
        total += bonus + _PER_PLACE * min(place, _LAST_PLACE)
    return total


Pairs = Mapping[str, Mapping[str, Evidence]]


def english_phrase(text: str) -> str:
  """Returns the phrase that captions are searched for, or '' if unfit.

  >>> english_phrase('To play the piano')
  'play the piano'
  """
  text = ' '.join(text.translate(freedict.SPELLINGS).lower().split())
  text = _LEADING.sub('', text.strip(' -.,'))
  is_fit = _ENGLISH.fullmatch(text) and text not in ARTICLES
  return text if is_fit else ''


def available_languages() -> list[str]:
  """Returns those of `LANGUAGES` whose packages `sources` knows."""
  return [language for language in LANGUAGES if _known_packages(language)]


def package_names(language: str) -> list[str]:
  """Returns the packages of a language: English→X, X→English.

  Raises:
    UserError: an unknown language, or one without a dictionary.
  """
  names = _known_packages(language)
  if not names:
    raise errors.UserError(
        f'no dictionary for {language!r}; there are: '
        f'{", ".join(available_languages())}')
  return names


def _known_packages(language: str) -> list[str]:
  names = [name
           for code in languages_lib.source_codes('freedict', [language])
           for name in (f'freedict-eng-{code}', f'freedict-{code}-eng')]
  return [name for name in (*names, _MORE.get(language))
          if name in sources.SOURCES and name not in _SKIPPED]


def collect(language: str, folders: Mapping[str, pathlib.Path]) -> Pairs:
  """Returns the translations of each English phrase with their evidence.

  Args:
    language: target language.
    folders: package name → unpacked folder, English→X and X→English.
  """
  pairs: dict[str, dict[str, Evidence]] = {}
  for name, folder in folders.items():
    is_inverse = name.endswith('-eng') or name == cedict.PACKAGE
    for heads, bodies in _READERS.get(name, freedict.read)(folder, name):
      english, foreign = (bodies, heads) if is_inverse else (heads, bodies)
      add_entry(pairs, language, english, foreign, is_inverse=is_inverse,
                is_ordered=language not in _UNORDERED)
  return pairs


def add_entry(pairs: dict[str, dict[str, Evidence]], language: str,
              english: Sequence[str], foreign: Sequence[str], *,
              is_inverse: bool, is_ordered: bool = True) -> None:
  """Adds an entry of a dictionary to the evidence.

  Args:
    pairs: what is known so far.
    language: of the foreign texts.
    english: phrases of the entry.
    foreign: texts that mean the same.
    is_inverse: whether the dictionary is from the foreign language.
    is_ordered: whether the better translation comes first.
  """
  cleaned = [freedict.clean(text, language) for text in foreign]
  if not any(cleaned):
    return
  for english_place, phrase in enumerate(map(english_phrase, english)):
    if not phrase:
      continue
    found = pairs.setdefault(phrase, {})
    for text in cleaned:
      if text:
        place = english_place if is_inverse else len(found)
        _add(found.setdefault(text, Evidence()),
             place if is_ordered else 0, is_inverse)


def _add(evidence: Evidence, place: int, is_inverse: bool) -> None:
  """Adds one entry's word to the evidence."""
  evidence.witnesses += 1
  side = 'inverse' if is_inverse else 'forward'
  known = getattr(evidence, side)
  setattr(evidence, side, place if known is None else min(known, place))


def rank(pairs: Pairs, tokenizer: tokenizer_lib.Tokenizer,
         ) -> dict[str, list[list[int]]]:
  """Returns the best translations of each phrase as token ids, best first."""
  meanings = collections.Counter(
      text for found in pairs.values() for text in found)
  texts = sorted(meanings)
  ids_of = dict(zip(texts, tokenizer.encode_batch(texts), strict=True))
  ranked = {}
  for phrase, found in pairs.items():
    scored = sorted(
        ((evidence.score(ids_of[text], meanings[text]), text)
         for text, evidence in found.items()
         if _is_usable(ids_of[text])), reverse=True)
    best = [ids_of[text] for score, text in scored[:MAX_TRANSLATIONS]
            if score >= scored[0][0] - _WORST]
    if best:
      ranked[phrase] = best
  return ranked


def _is_usable(ids: Sequence[int]) -> bool:
  return 0 < len(ids) <= MAX_PIECES and tokenizer_lib.UNK not in ids


def add_fallbacks(ranked: dict[str, list[list[int]]]) -> None:
  """Adds English plurals and spellings without hyphens where absent."""
  for phrase, translations in list(ranked.items()):
    if '-' in phrase and phrase.count('-') + phrase.count(' ') < 3:
      ranked.setdefault(phrase.replace('-', ' '), translations)
    if phrase[-1].isalpha() and not phrase.endswith('s'):
      ranked.setdefault(_plural(phrase), translations)


def _plural(phrase: str) -> str:
  before, space, last = phrase.rpartition(' ')
  if last in _IRREGULAR_PLURALS:
    return before + space + _IRREGULAR_PLURALS[last]
  if phrase.endswith('y') and phrase[-2:-1] not in tuple('aeiou'):
    return phrase[:-1] + 'ies'
  if phrase.endswith(('sh', 'ch', 'x', 'z')):
    return phrase + 'es'
  return phrase + 's'
