"""Captions as words: each with its punctuation, token ids and dictionary key.

Strings end here. At training time a word is found in a dictionary by its key
and replaced by token ids; see `code_switch.py`.
"""

from collections.abc import Sequence
import hashlib
import re
from typing import Any, NamedTuple
import unicodedata

# Dictionaries translate from this language; captions in others are never
# switched.
SOURCE_LANGUAGE = 'en'
# A caption is a sentence, not a page.
MAX_WORDS = 100
# The parts of a word whose token ids are kept apart.
PARTS = ('word', 'prefix', 'suffix')

# A suffix follows a word without a space: it is tokenised behind this letter,
# which is one piece before any punctuation.
_STEM = 'a'
# Python splits at these controls too, which the tokenizer leaves out or keeps.
_SPACES = re.compile(r'[^\S\v\x1c-\x1f\x85]+')


class Word(NamedTuple):
  """A word between spaces: leading punctuation, core, trailing punctuation."""
  prefix: str
  core: str
  suffix: str


def split_words(text: str) -> list[str]:
  """Returns the words between what the tokenizer too takes for spaces.

  >>> split_words(' one\u3000two\\x1f ')
  ['one', 'two\\x1f']
  """
  return [word for word in _SPACES.split(text) if word]


def split_word(word: str) -> Word:
  """Returns the word with the punctuation around it taken off.

  >>> split_word('"Pizza."')
  Word(prefix='"', core='Pizza', suffix='."')
  """
  start, end = 0, len(word)
  while start < end and _is_punctuation(word[start]):
    start += 1
  while end > start and _is_punctuation(word[end - 1]):
    end -= 1
  return Word(word[:start], word[start:end], word[end:])


def _is_punctuation(character: str) -> bool:
  return unicodedata.category(character)[0] in 'PSZ'


def word_key(core: str) -> int:
  """Returns the signed 64-bit hash of the case-folded NFKC core; '' gives 0."""
  if not core:
    return 0
  folded = unicodedata.normalize('NFKC', core).casefold()
  digest = hashlib.blake2b(folded.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'little', signed=True)


class _Encoded(NamedTuple):
  # As records hold it; ids in the order of `PARTS`.
  key: int
  ids: tuple[list[int], ...]


class Encoder:
  """Turns captions into records; remembers the words it has met."""

  def __init__(self, tokenizer: Any):
    self._tokenizer = tokenizer
    self._met: dict[str, _Encoded] = {}

  def encode(self, texts: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns (language, text) of captions as `image_text_features` has them.

    A third number, of a caption's class, stays with it.

    Each word is tokenised by itself: SentencePiece never crosses a space, so
    the ids of the words, one after the other, are the ids of the sentence.
    """
    captions = [(language, split_words(text)) for language, text, *_ in texts]
    self._meet({word for _, words in captions for word in words})
    return [self._caption(language, words) | (
        {'label': label[0]} if label else {}) for (language, words), (
            _, _, *label) in zip(captions, texts, strict=True)]

  def _meet(self, words: set[str]) -> None:
    new = sorted(words - self._met.keys())
    if not new:
      return
    parts = [split_word(word) for word in new]
    count = len(new)
    pieces = self._tokenizer.encode_batch(
        new + [part.prefix for part in parts]
        + [_STEM + part.suffix for part in parts])
    for i, (word, part) in enumerate(zip(new, parts, strict=True)):
      whole, prefix, suffix = pieces[i::count]
      self._met[word] = _Encoded(
          word_key(part.core), (whole, prefix, suffix[1:]))

  def _caption(self, language: str, words: list[str]) -> dict[str, Any]:
    met = [self._met[word] for word in words]
    if language != SOURCE_LANGUAGE:
      met = [_Encoded(0, (word.ids[0], [], [])) for word in met]
    caption: dict[str, Any] = {
        'language': language, 'text': ' '.join(words),
        'keys': [word.key for word in met]}
    for i, name in enumerate(PARTS):
      caption[f'{name}_ids'] = [x for word in met for x in word.ids[i]]
      caption[f'{name}_lengths'] = [len(word.ids[i]) for word in met]
    return caption
