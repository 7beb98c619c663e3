"""Captions tokenised for preparation, against SentencePiece caption by caption.
"""

from collections.abc import Sequence
import functools

import numpy as np

from benchmarks import contest
from benchmarks import report
from input_pipeline import captions
from input_pipeline import tokenizer as tokenizer_lib

_CAPTIONS = 20_000
_ROUNDS = 7


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns one row, whatever the sizes."""
  del sizes
  with contest.Process('benchmarks.tokenising:variants') as process:
    timings = contest.take_turns(
        {name: (process, name) for name in process.names}, rounds=_ROUNDS)
  words, whole = ([timing.seconds for timing in timings[name]]
                  for name in process.names)
  return [report.rate(
      'tokenising captions', 'SentencePiece, caption by caption',
      contest.compare(words, whole), count=_CAPTIONS, unit='captions/s',
      note='ours gives each word\'s ids and key too, for code-switching')]


def variants() -> dict[str, contest.Run]:
  """Returns the two ways through the same captions."""
  tokenizer = tokenizer_lib.load()
  rng = np.random.default_rng(0)
  words = [word for word in (tokenizer.decode([i]).strip()
                             for i in range(1_000, 9_000)) if word.isalpha()]
  # Words are as frequent as in a language: about one in their rank.
  weights = 1.0 / np.arange(1, len(words) + 1)
  texts = [' '.join(rng.choice(words, 10, p=weights / weights.sum()))
           for _ in range(_CAPTIONS)]
  return {'words': functools.partial(_by_words, tokenizer, texts),
          'whole': functools.partial(_whole, tokenizer, texts)}


def _by_words(tokenizer, texts: Sequence[str]) -> None:
  encoder = captions.Encoder(tokenizer)
  for text in texts:
    encoder.encode([('en', text)])


def _whole(tokenizer, texts: Sequence[str]) -> None:
  for text in texts:
    tokenizer.encode(text)
