"""How often tokens and region classes occur in the training data.

A head that has learned only this is the baseline of the masked objectives,
and what they begin with (see first_values.py).
Letters: B rows, L text length, R regions, F region feature, V padded
vocabulary, C region classes.
"""

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.objectives import masking

_EOS = 2


class Frequencies(NamedTuple):
  """What one stream holds, on average.

  Attributes:
    log_token_V: float32, log-probability of each token (words only).
    log_class_C: float32, log-probability of each region class; None without
      regions.
    feature_F: float32, the mean region feature; None without regions.
    log_end: float32 scalar, of `</s>`s for each word; `log_token_V` has none.
  """
  log_token_V: np.ndarray
  log_class_C: np.ndarray | None = None
  feature_F: np.ndarray | None = None
  log_end: np.ndarray | None = None

  def log_written_V(self) -> np.ndarray:
    """Returns float32 log-probabilities of what is written: `</s>` as well."""
    log_V = self.log_token_V.copy()
    log_V[_EOS] = self.log_end
    return log_V - np.logaddexp(np.float32(0), self.log_end)


def count(batches: Iterable[Mapping[str, batch_lib.Batch]], *,
          vocab_size: int, num_classes: int) -> dict[str, Frequencies]:
  """Returns the frequencies of each stream's NumPy rows, by its name.

  A stream has regions always or never.
  """
  counters = collections.defaultdict(
      lambda: _Counter(vocab_size, num_classes))
  for streams in batches:
    for name, batch in streams.items():
      counters[name].add(batch)
  return {name: counter.frequencies() for name, counter in counters.items()}


class _Counter:
  """Sums over the rows of one stream."""

  def __init__(self, vocab_size: int, num_classes: int):
    self._tokens_V = np.zeros(vocab_size, np.int64)
    self._classes_C = np.zeros(num_classes, np.int64)
    self._num_ends = 0
    self._feature_F: np.ndarray | None = None

  def add(self, batch: batch_lib.Batch) -> None:
    """Counts what may be masked: words, and regions that are no background."""
    texts = [(batch.token_ids_BL, batch.text_mask_BL)]
    if 'source_ids_BL' in batch.extra:
      texts.append((batch.extra['source_ids_BL'],
                    batch.extra['source_mask_BL']))
    for token_ids_BL, text_mask_BL in texts:
      is_word_BL = np.asarray(masking.is_word(token_ids_BL)) & text_mask_BL
      self._tokens_V += np.bincount(
          token_ids_BL[is_word_BL], minlength=len(self._tokens_V))
      self._num_ends += int((token_ids_BL == _EOS).sum())
    regions = batch.regions
    if regions is None:
      return
    is_object_BR = regions.mask_BR & (regions.class_ids_BR > 0)
    self._classes_C += np.bincount(
        regions.class_ids_BR[is_object_BR], minlength=len(self._classes_C))
    sum_F = regions.features_BRF[is_object_BR].sum(0, dtype=np.float64)
    self._feature_F = (
        sum_F if self._feature_F is None else self._feature_F + sum_F)

  def frequencies(self) -> Frequencies:
    log_token_V = log_probabilities(self._tokens_V)
    log_end = np.log(np.float32(
        max(1, self._num_ends) / max(1, self._tokens_V.sum())))
    if self._feature_F is None:
      return Frequencies(log_token_V, log_end=log_end)
    mean_F = self._feature_F / max(1, self._classes_C.sum())
    return Frequencies(log_token_V, log_probabilities(self._classes_C),
                       mean_F.astype(np.float32), log_end)


def log_probabilities(counts_N: np.ndarray) -> np.ndarray:
  """Returns float32 log-probabilities, none of them zero.

  Witten and Bell (1991): of N events of T kinds, the kinds never seen share
  T / (N + T).
  """
  num_events, is_seen_N = counts_N.sum(), counts_N > 0
  num_kinds, num_unseen = is_seen_N.sum(), (~is_seen_N).sum()
  if not num_kinds:
    return np.full(len(counts_N), -np.log(len(counts_N)), np.float32)
  total = num_events + (num_kinds if num_unseen else 0)
  share_N = np.where(is_seen_N, counts_N, num_kinds / max(1, num_unseen))
  return np.log(share_N / total).astype(np.float32)


def mixture(parts: Mapping[str, Frequencies]) -> Frequencies:
  """Returns the frequencies of rows drawn from each part equally often."""

  def mean(name: str) -> np.ndarray | None:
    logs = [x for x in (getattr(part, name) for part in parts.values())
            if x is not None]
    if not logs:
      return None
    return (np.logaddexp.reduce(logs) - np.log(len(logs))).astype(np.float32)

  features = [part.feature_F for part in parts.values()
              if part.feature_F is not None]
  return Frequencies(mean('log_token_V'), mean('log_class_C'),
                     np.mean(features, axis=0) if features else None,
                     mean('log_end'))
