"""A user's texts and pictures as the model's input, and in what language.

Letters: B pictures, C texts, L text length, R regions, F region feature, G=5
box.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import functools
import itertools
import textwrap
from typing import Any, NamedTuple
import unicodedata

from absl import logging
import jax
import numpy as np

from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import batch as batch_lib
from m3p_jax import startup
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import weights as weights_lib

_BOS, _PAD, _EOS = 0, 1, 2
# Pictures in one call of the network: a search brings one, seldom many.
_EXTRACTOR_BATCH = 4
# Of a text that comes alone.
_QUERY_LENGTHS = (16, 64)
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
# Captions of a language that its script is told by.
_SAMPLE = 64
# More languages than this that fit equally well say nothing.
_MOST = 3
# Scripts that tell the language; others are written in many.
_OF_ONE = frozenset((
    'Greek', 'Hebrew', 'Tamil', 'Telugu', 'Gujarati', 'Kannada', 'Malayalam',
    'Gurmukhi', 'Sinhala', 'Thai', 'Lao', 'Khmer', 'Burmese', 'Japanese',
    'Korean', 'Georgian', 'Armenian'))


class Word(NamedTuple):
  """A word of a text, and which tokens of `tokenise` are its pieces."""
  text: str
  start: int
  end: int


class Reader:
  """Reads what the weights were trained to read; loads it when needed."""

  def __init__(self, weights: weights_lib.Weights):
    """Args: `weights` name their tokenizer and feature extractor."""
    self._weights = weights

  def tokenise(self, texts: Sequence[str], *, language: str | None = None,
               num_regions: int = 0) -> engine_lib.Texts:
    """Returns texts as rows of tokens; what has no position is cut off.

    `num_regions` regions take positions before the text.

    Raises:
      UserError: an empty text, or a language that the model does not know.
    """
    try:
      room = self._weights.config.text_room(num_regions)
    except ValueError as error:
      raise errors.UserError(str(error)) from error
    rows, num_cut = [], 0
    for text in texts:
      ids = self._tokenizer.encode(text)
      num_cut += len(ids) > room - 2
      ids = ids[:room - 2]
      if not ids:
        raise errors.UserError(
            f'text {textwrap.shorten(repr(text), 60)} has no words')
      rows.append([_BOS, *ids, _EOS])
    if num_cut:
      logging.warning(
          '%d of %d texts have more ids than the %d that the model has '
          'positions for: what is beyond is not read', num_cut, len(rows),
          room - 2)
    longest = max(map(len, rows), default=0)
    # Every width is compiled anew: only a few are used, and fewer still for a
    # visitor's query, whose padding costs next to nothing.
    lengths = engine_lib.LENGTHS if len(rows) > 1 else _QUERY_LENGTHS
    width = min([size for size in lengths if size >= longest] + [room])
    token_ids_CL = np.full((len(rows), width), _PAD, np.int32)
    for row, ids in enumerate(rows):
      token_ids_CL[row, :len(ids)] = ids
    return engine_lib.Texts(token_ids_CL, token_ids_CL != _PAD,
                         self._language_ids(language, len(rows)))

  def words(self, text: str) -> list[Word]:
    """Returns the words that `tokenise` makes its tokens of.

    Where a script puts no spaces between words, the tokenizer's pieces stand
    for them.
    """
    found, start = [], 1  # After `<s>`.
    for word in self._tokenizer.split(text):
      ids = self._tokenizer.encode(word)
      parts = [(word, len(ids))]
      if not has_spaces(word):
        parts = _joined([self._tokenizer.decode([one]) for one in ids])
      for part, length in parts:
        found.append(Word(part, start, start + length))
        start += length
    return [word for word in found if word.end > word.start]

  def regions(self, images: Sequence[Any]) -> batch_lib.Regions:
    """Returns the regions of paths, Pillow images or uint8 arrays [H, W, 3].

    Raises:
      PictureError: one cannot be used.
    """
    sets = self._extractor.extract(images)
    # Every number of regions is compiled anew: one is used where it is known.
    num_regions = max(self._extractor.manifest.get('num_regions', 0),
                      *(len(one.boxes_R4) for one in sets))

    def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
      return np.stack([
          np.pad(array, [(0, num_regions - len(array))]
                 + [(0, 0)] * (array.ndim - 1)) for array in arrays])

    boxes_BR4 = stack([one.boxes_R4 for one in sets]).astype(np.float32)
    size_B14 = np.array([[[one.width, one.height] * 2] for one in sets],
                        np.float32)
    x1, y1, x2, y2 = np.moveaxis(boxes_BR4 / size_B14, -1, 0)
    return batch_lib.Regions(
        image_id_B=np.arange(len(sets), dtype=np.int32),
        features_BRF=stack([one.features_RF for one in sets]),
        boxes_BRG=np.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], -1),
        class_ids_BR=stack([one.class_ids_R for one in sets]),
        mask_BR=stack([np.ones(len(one.boxes_R4), bool) for one in sets]))

  @functools.cached_property
  def _tokenizer(self):
    loaded = tokenizer_lib.load()
    expected = self._weights.manifest.get('tokenizer', {}).get('sha256')
    if expected and tokenizer_lib.known_as(expected) != loaded.sha256:
      raise errors.UserError(
          f'the tokenizer here has sha256 {loaded.sha256}, the one of '
          f'{self._weights.path} {expected}')
    startup.check_fit(
        self._weights.config,
        {'tokenizer': {'vocab_size': loaded.vocab_size}}, 'this package',
        self._weights.path)
    return loaded

  @functools.cached_property
  def _extractor(self):
    # Its weights may have to be fetched.
    from input_pipeline.vision import extractors
    expected = self._weights.manifest.get('feature_extractor') or {}
    extractor = extractors.make_extractor(
        extractors.features_of(self._weights.manifest))
    if expected not in ({}, extractor.manifest):
      raise errors.UserError(
          f'{self._weights.path} was trained on features of {expected}; new '
          f'pictures are read by {extractor.manifest}')
    startup.check_fit(
        self._weights.config, {'feature_extractor': extractor.manifest},
        f'the extractor {extractor.manifest["name"]!r}', self._weights.path)
    return extractor

  def _language_ids(self, language: str | None,
                    count: int) -> np.ndarray | None:
    if language is None or self._weights.config.num_languages == 1:
      return None
    known = self._weights.language_ids
    if language not in known:
      raise errors.UserError(
          f'language is {language!r}; allowed: {", ".join(known)}')
    return np.full(count, known[language], np.int32)


def _joined(pieces: Sequence[str]) -> list[tuple[str, int]]:
  """Returns (text, number of pieces); one without text joins the next.

  >>> _joined(['', '赤', 'い', ''])
  [('赤', 2), ('い', 2)]
  """
  parts: list[tuple[str, int]] = []
  waiting = 0
  for piece in pieces:
    waiting += 1
    if piece.strip():
      parts.append((piece, waiting))
      waiting = 0
  if waiting and parts:
    text, length = parts.pop()
    parts.append((text, length + waiting))
  return parts


def row(regions: batch_lib.Regions, index: int) -> batch_lib.Regions:
  """Returns one picture's regions, still with a first axis."""
  return jax.tree.map(lambda x: x[index:index + 1], regions)


def concatenate(parts: Sequence[batch_lib.Regions]) -> batch_lib.Regions:
  """Returns the pictures of all parts, regions padded to the longest."""
  longest = max(part.mask_BR.shape[1] for part in parts)

  def join(*arrays):
    return np.concatenate([
        np.pad(array, [(0, 0), (0, longest - array.shape[1])]
               + [(0, 0)] * (array.ndim - 2)) if array.ndim > 1 else array
        for array in map(np.asarray, arrays)])

  return jax.tree.map(join, *parts)


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


class Guess(NamedTuple):
  """What a query looks like."""
  languages: tuple[str, ...]  # That fit best; none where too many do.

  def __str__(self) -> str:
    """In words; '' where nothing can be said."""
    names = [languages.name(code) for code in self.languages]
    return 'looks like ' + ' or '.join(names) if names else ''


class Guesser:
  """Compares queries with the collection's captions."""

  def __init__(self, texts: Mapping[str, Iterable[str]]):
    self._words, self._scripts, self._letters = {}, {}, {}
    for language, captions in texts.items():
      captions = list(map(_form, captions))
      self._words[language] = {
          word for text in captions for word in _words(text)}
      self._letters[language] = set(itertools.chain.from_iterable(captions))
      self._scripts[language] = main_script(
          ' '.join(captions[:_SAMPLE]))

  def guess(self, query: str) -> Guess:
    """Returns the languages whose captions share most words with a query.

    Where no word is known, a language stands there only if its script is its
    own: a query may be in any that the model has learned.
    """
    query = _form(query)
    script = main_script(query)
    fitting = [language for language, own in self._scripts.items()
               if script and (own == script or (
                   # Japanese that happens to be written without syllables.
                   script == 'Chinese' and own == 'Japanese'))]
    if len(fitting) > 1 or script not in _OF_ONE:
      words = _words(query)
      known = {language: sum(word in self._words[language] for word in words)
               for language in fitting}
      if not any(known.values()) and not has_spaces(query):
        # Without spaces there may be no word to find: letters have to do.
        known = {language: sum(
            letter in self._letters[language] for letter in query)
                 for language in fitting}
      best = max(known.values(), default=0)
      fitting = [language for language in fitting if best
                 and known[language] == best]
    return Guess(tuple(fitting) if len(fitting) <= _MOST else ())


def _form(text: str) -> str:
  # As the tokenizer reads it, composed: Macs type and name files decomposed.
  return unicodedata.normalize('NFKC', text)


def _words(text: str) -> list[str]:
  cores = (tokenizer_lib.split_word(word).core for word in text.split())
  return [core.casefold() for core in cores if core]
