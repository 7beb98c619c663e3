"""What `python -m input_pipeline.code_switch` prints."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import numpy as np

from input_pipeline import dictionaries
from input_pipeline import records


def show(switched: Any, row_splits: Sequence[int], languages: Sequence[str],
         decode: Callable[[Sequence[int]], str]) -> list[str]:
  """Returns the captions as lines, translations in their language's colour.

  Args:
    switched: of `code_switch.switch_words`.
    row_splits: the captions' first words, and the end.
    languages: of the dictionary.
    decode: token ids → text.
  """
  ids, is_switched_W, languages_W = (
      switched.ids.to_list(), switched.is_switched_W.numpy(),
      switched.languages_W.numpy())
  lines = []
  for start, end in itertools.pairwise(row_splits):
    parts, met = [], []
    for word in range(start, end):
      text = decode(ids[word]) if ids[word] else ''
      if is_switched_W[word]:
        number = int(languages_W[word]) - 1
        met.append(languages[number])
        # The six colours of a terminal, in turn.
        text = f'\x1b[{31 + number % 6}m{text}\x1b[0m'
      parts += [text] if text else []
    lines.append(' '.join(parts) + (
        f'  [{", ".join(dict.fromkeys(met))}]' if met else ''))
  return lines


def coverage_table(dictionary: dictionaries.Dictionary,
                   keys_W: np.ndarray) -> list[str]:
  """Returns lines: what each language can translate of words with these keys.

  A collision is a key that two phrases of the dictionary share; which of them
  is found is chance.
  """
  lines = ['language   words translated   translations   collisions']
  shares = dictionaries.coverage(dictionary, keys_W)
  # The table is sorted, and the first of equal keys is found.
  is_collision_K = np.append(np.diff(dictionary.keys_K) == 0, False)
  for number, (language, share) in enumerate(
      zip(dictionary.languages, shares, strict=True), 1):
    wanted_W = records.mix_keys(
        np.unique(keys_W[keys_W != 0]), np.int64(number))
    place_W = np.minimum(np.searchsorted(dictionary.keys_K, wanted_W),
                         len(dictionary.keys_K) - 1)
    place_W = place_W[dictionary.keys_K[place_W] == wanted_W]
    mean = (float(dictionary.counts_K[place_W].mean()) if len(place_W)
            else 0.0)
    lines.append(f'{language:8}   {100 * share:14.1f} %   {mean:12.2f}   '
                 f'{int(is_collision_K[place_W].sum()):10d}')
  return lines
