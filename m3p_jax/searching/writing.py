"""Scripts: which one a text is written in, and which write without spaces."""

from collections import Counter
import functools
import unicodedata

# First words of a character's Unicode name → the script's name. 'CJK' and the
# Japanese syllabaries are told apart, for only one language uses the latter.
_SCRIPTS = {
    'LATIN': 'Latin', 'CYRILLIC': 'Cyrillic', 'GREEK': 'Greek',
    'ARABIC': 'Arabic', 'HEBREW': 'Hebrew', 'DEVANAGARI': 'Devanagari',
    'BENGALI': 'Bengali', 'TAMIL': 'Tamil', 'TELUGU': 'Telugu',
    'GUJARATI': 'Gujarati', 'KANNADA': 'Kannada', 'MALAYALAM': 'Malayalam',
    'GURMUKHI': 'Gurmukhi', 'SINHALA': 'Sinhala', 'THAI': 'Thai',
    'LAO': 'Lao', 'KHMER': 'Khmer', 'MYANMAR': 'Burmese', 'CJK': 'Chinese',
    'HIRAGANA': 'Japanese', 'KATAKANA': 'Japanese', 'HANGUL': 'Korean',
    'GEORGIAN': 'Georgian', 'ARMENIAN': 'Armenian', 'ETHIOPIC': 'Ethiopic',
    'TIBETAN': 'Tibetan'}
_WITHOUT_SPACES = frozenset(
    ('Chinese', 'Japanese', 'Thai', 'Lao', 'Khmer', 'Burmese', 'Tibetan'))


@functools.lru_cache(maxsize=4096)
def script_of(character: str) -> str:
  """Returns the script of a letter or mark, '' of anything else.

  >>> script_of('ß'), script_of('я'), script_of('り'), script_of('🍎')
  ('Latin', 'Cyrillic', 'Japanese', '')
  """
  if unicodedata.category(character)[0] not in 'LM':
    return ''
  name = unicodedata.name(character, '').replace('-', ' ')
  first, _, rest = name.partition(' ')
  if first in ('FULLWIDTH', 'HALFWIDTH'):
    first = rest.partition(' ')[0]
  return _SCRIPTS.get(first, '')


def main_script(text: str) -> str:
  """Returns the script of most letters, '' where no letter has a known one.

  A text with Japanese syllables is Japanese, whatever its other characters.

  >>> main_script('赤いりんご'), main_script('iPhone 手机'), main_script('?!')
  ('Japanese', 'Latin', '')
  """
  counts = Counter(script for script in map(script_of, text) if script)
  if not counts:
    return ''
  if counts['Japanese']:
    counts['Japanese'] += counts.pop('Chinese', 0)
  return counts.most_common(1)[0][0]


def has_spaces(word: str) -> bool:
  """Returns whether a word's script puts spaces between words.

  >>> has_spaces('Apfel'), has_spaces('りんご'), has_spaces('แอปเปิ้ล')
  (True, False, False)
  """
  return main_script(word) not in _WITHOUT_SPACES
