"""Captions as words: each with its punctuation, token ids and dictionary key.

Strings end here. At training time a word is found in a dictionary by its key
and replaced by token ids; see `code_switch.py`.
"""

from collections.abc import Sequence
import hashlib
from typing import Any, NamedTuple
import unicodedata

from input_pipeline import records
from input_pipeline import tokenizer as tokenizer_lib

# A caption is a sentence, not a page.
MAX_WORDS = 100


# A suffix follows a word without a space: it is tokenised behind this letter,
# which is one piece before any punctuation.
_STEM = 'a'


class Word(NamedTuple):
  """A word between spaces: leading punctuation, core, trailing punctuation."""
  prefix: str
  core: str
  suffix: str


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


def encode(texts: Sequence[tuple[str, str]],
           tokenizer: tokenizer_lib.Tokenizer) -> list[dict[str, Any]]:
  """Returns the captions of one picture as `records.image_text_features` has.

  Each word is tokenised by itself: SentencePiece never crosses a space, so the
  ids of the words, one after the other, are the ids of the sentence.

  Args:
    texts: (language, text) of each caption.
    tokenizer: of the model.
  """
  encoded = []
  for language, text in texts:
    words = text.split()
    parts = [split_word(word) for word in words]
    pieces = tokenizer.encode_batch(
        words + [piece for part in parts for piece in part[:2]]
        + [_STEM + part.suffix for part in parts])
    caption: dict[str, Any] = {
        'language': language, 'text': ' '.join(words),
        'keys': [word_key(part.core) for part in parts]}
    count = len(words)
    columns = [pieces[:count], pieces[count:3 * count:2],
               pieces[count + 1:3 * count:2],
               [ids[1:] for ids in pieces[3 * count:]]]
    for name, column in zip(records.PARTS, columns, strict=True):
      caption[f'{name}_ids'] = [i for ids in column for i in ids]
      caption[f'{name}_lengths'] = [len(ids) for ids in column]
    encoded.append(caption)
  return encoded
