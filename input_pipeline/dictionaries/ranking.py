"""Cleans, collects and ranks the translations of English phrases.

Two dictionaries bear witness, English→X and X→English; how common a
translation is decides among what they offer.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import math
import re
import unicodedata

from input_pipeline import tokenizer as tokenizer_lib

# Words in the longest phrase, on either side.
MAX_WORDS = 3
MAX_TRANSLATIONS = 5
MAX_PIECES = 8
# Left out: half of the target languages have none.
ARTICLES = ('a', 'an', 'the')

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

# Placeholders ("jemandem", "somebody") and signs of a definition.
_UNFIT = re.compile(
    r'[.:!?"/{}()\[\]<>=+#…;\d@&%]|\bsb\b|\bsth\b|\bsg\b|\bsy\b|\bvki|\bvmi|'
    r'\bvala[mk]i|\betw\b|\bjd[nmr]?s?\b|(?:^|\s)-|-$')
_SPELLINGS = str.maketrans({'‐': '-', '‑': '-', '’': "'", '~': ' ',
                            '\u0301': None, '\u00ad': None, '`': "'"})
_ARABIC_WHOLE = frozenset(('الله', 'الآن', 'التي', 'الذي'))
_ARABIC_VOWELS = re.compile('[\u064b-\u0652\u0640\u0670]')
# The Hungarian dictionary was made in Latin-1, which lacks long umlauts.
_HUNGARIAN = str.maketrans('ôõûÔÕÛ', 'őőűŐŐŰ')
# Letters that a word of the language may hold beside spaces and hyphens.
_LATIN = "A-Za-z\u00aa-\u024f\u1e00-\u1eff"
_LETTERS = dict.fromkeys((
    'cs', 'de', 'es', 'fi', 'fr', 'hr', 'hu', 'id', 'it', 'nl', 'pl', 'pt',
    'sv', 'tr'), _LATIN) | {
    'ar': '\u0600-\u06ff', 'bg': '\u0400-\u04ff', 'el': '\u0370-\u03ff\u1f00-'
    '\u1fff', 'hi': '\u0900-\u097f', 'ja': '\u3005-\u30ff\u3400-\u9fffー',
    'ru': '\u0400-\u04ff', 'zh_CN': '\u3400-\u9fff'}
# Beside letters and their marks: hyphen, apostrophe, zero-width joiners.
_JOINERS = "' -\u200c\u200d"

_ENGLISH = re.compile(r"[\w'.&-]{2,}(?: [\w'.&-]+){0,2}")
_LEADING = re.compile(r'^(?:to|a|an|the) (?=\S)')
_IRREGULAR_PLURALS = {
    'man': 'men', 'woman': 'women', 'child': 'children', 'mouse': 'mice',
    'foot': 'feet', 'tooth': 'teeth', 'goose': 'geese', 'leaf': 'leaves',
    'wolf': 'wolves', 'knife': 'knives', 'calf': 'calves', 'loaf': 'loaves'}


@dataclasses.dataclass(slots=True)
class Evidence:
  """What dictionaries say about one translation of an English phrase.

  Attributes:
    witnesses: entries that name the pair.
    forward: its first place in English→X; infinite = not there.
    inverse: its first place in X→English; infinite = not there.
  """
  witnesses: int = 0
  forward: float = math.inf
  inverse: float = math.inf


Pairs = Mapping[str, Mapping[str, Evidence]]


def clean(text: str, language: str) -> str:
  """Returns `text` ready to be a translation, or '' where it is unfit.

  Unfit are definitions, abbreviations, more than three words and words that
  are not written in the language's script.
  """
  text = unicodedata.normalize('NFC', text.translate(_SPELLINGS))
  if language == 'ar':
    text = _strip_arabic_article(_ARABIC_VOWELS.sub('', text))
  elif language == 'hu':
    text = text.translate(_HUNGARIAN)
  text = ' '.join(text.split()).strip(" ,-'")
  if not text or text.count(' ') >= MAX_WORDS or _UNFIT.search(text):
    return ''
  letters = _LETTERS.get(language)
  is_word = (re.fullmatch(rf"[{letters}' -]+", text) if letters
             else all(_is_letter(character) for character in text))
  return text if is_word else ''


def _strip_arabic_article(text: str) -> str:
  # The dictionary sets "the" before nouns.
  has_article = (text.startswith('ال') and len(text) > 3 and ' ' not in text
                 and text not in _ARABIC_WHOLE)
  return text[2:] if has_article else text


def _is_letter(character: str) -> bool:
  return character in _JOINERS or unicodedata.category(character)[0] in 'LM'


def english_phrase(text: str) -> str:
  """Returns the phrase that captions are searched for, or '' if unfit.

  >>> english_phrase('To play the piano')
  'play the piano'
  """
  text = ' '.join(text.translate(_SPELLINGS).lower().split())
  text = _LEADING.sub('', text.strip(' -.,'))
  is_fit = _ENGLISH.fullmatch(text) and text not in ARTICLES
  return text if is_fit else ''


def add_entry(pairs: dict[str, dict[str, Evidence]], language: str,
              english: Sequence[str], foreign: Sequence[str], *,
              is_inverse: bool, is_ordered: bool = True) -> None:
  """Adds an entry of a dictionary to the evidence.

  Args:
    language: of the foreign texts, which mean the same as the English ones.
    is_inverse: whether the dictionary is from the foreign language.
    is_ordered: whether the better translation comes first.
  """
  cleaned = [text for text in (clean(text, language) for text in foreign)
             if text]
  if not cleaned:
    return
  for english_place, phrase in enumerate(map(english_phrase, english)):
    if not phrase:
      continue
    found = pairs.setdefault(phrase, {})
    for text in cleaned:
      place = english_place if is_inverse else len(found)
      place = place if is_ordered else 0
      evidence = found.setdefault(text, Evidence())
      evidence.witnesses += 1
      if is_inverse:
        evidence.inverse = min(place, evidence.inverse)
      else:
        evidence.forward = min(place, evidence.forward)


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
        ((_score(evidence, ids_of[text], meanings[text]), text)
         for text, evidence in found.items()
         if _is_usable(ids_of[text])), reverse=True)
    best = [ids_of[text] for score, text in scored[:MAX_TRANSLATIONS]
            if score >= scored[0][0] - _WORST]
    if best:
      ranked[phrase] = best
  return ranked


def _score(evidence: Evidence, ids: Sequence[int], meanings: int) -> float:
  total = (_PER_MEANING * math.log(meanings) +
           _PER_WITNESS * math.log(evidence.witnesses) -
           _FREQUENCY * sum(map(math.log, ids)))
  for bonus, place in ((_FORWARD, evidence.forward),
                       (_INVERSE, evidence.inverse)):
    if place < math.inf:
      total += bonus + _PER_PLACE * min(place, _LAST_PLACE)
  return total


def _is_usable(ids: Sequence[int]) -> bool:
  return 0 < len(ids) <= MAX_PIECES and tokenizer_lib.UNK not in ids


def add_fallbacks(ranked: dict[str, list[list[int]]]) -> None:
  """Adds English plurals and spellings without hyphens where absent."""
  for phrase, translations in list(ranked.items()):
    if '-' in phrase and phrase.count('-') + phrase.count(' ') < MAX_WORDS:
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
