"""Finds a dictionary's phrases in captions, in pure TF ops.

Letters: B captions, W words of all captions one after the other.
"""

from typing import NamedTuple

import tensorflow as tf

from input_pipeline import dictionaries
from input_pipeline import records
from input_pipeline.dictionaries import ranking

MAX_WORDS = ranking.MAX_WORDS


class Words(NamedTuple):
  """The words of B captions.

  Attributes:
    row_splits: int64 [B + 1], the captions' first words.
    keys_W: int64 [W], key of the word's core; 0 where it has none, and in
      captions that are in no dictionary's source language.
    ids: RaggedTensor int32 [W, pieces], the word as tokenised in its caption.
    prefix_ids: RaggedTensor int32 [W, pieces], its leading punctuation.
    suffix_ids: RaggedTensor int32 [W, pieces], its trailing punctuation.
  """
  row_splits: tf.Tensor
  keys_W: tf.Tensor
  ids: tf.RaggedTensor
  prefix_ids: tf.RaggedTensor
  suffix_ids: tf.RaggedTensor


class Segments(NamedTuple):
  """What the dictionary offers for the phrase that starts at each word.

  Attributes:
    entry_W: int64 [W], row of the dictionary; −1 = nothing.
    length_W: int64 [W], words of the phrase; 1 where there is nothing.
  """
  entry_W: tf.Tensor
  length_W: tf.Tensor


def unswitched(words: Words) -> tf.RaggedTensor:
  """Returns the captions' own token ids [B, ids]."""
  splits = tf.gather(words.ids.row_splits, words.row_splits)
  return tf.RaggedTensor.from_row_splits(words.ids.flat_values, splits,
                                         validate=False)


def find_segments(words: Words, keys_K: tf.Tensor, rows_W: tf.Tensor,
                  languages_W: tf.Tensor | None = None) -> Segments:
  """Returns the longest phrase of a dictionary that starts at each word.

  Args:
    keys_K: int64 [K], the dictionary's keys, ascending.
    rows_W: int64 [W], the word's caption.
    languages_W: int64 [W], number of its target language, from 1, which is
      mixed into the keys; None = it is not.
  """
  num_words = tf.size(words.keys_W, out_type=tf.int64)
  has_prefix_W = words.prefix_ids.row_lengths() > 0
  has_suffix_W = words.suffix_ids.row_lengths() > 0
  phrase_W, is_phrase_W = words.keys_W, words.keys_W != 0
  entry_W = tf.fill([num_words], tf.constant(-1, tf.int64))
  length_W = tf.ones([num_words], tf.int64)
  for length in range(1, MAX_WORDS + 1):
    if length > 1:
      # A phrase ends at its caption's end and at punctuation.
      last_W = tf.minimum(tf.range(num_words) + length - 1, num_words - 1)
      is_phrase_W &= (
          (tf.range(num_words) + length - 1 < num_words) &
          (tf.gather(rows_W, last_W) == rows_W) &
          (tf.gather(words.keys_W, last_W) != 0) &
          ~tf.gather(has_prefix_W, last_W) &
          ~tf.gather(has_suffix_W, tf.maximum(last_W - 1, 0)))
      phrase_W = records.mix_keys(phrase_W, tf.gather(words.keys_W, last_W))
    place_W, is_found_W = _look_up(
        keys_K, phrase_W if languages_W is None
        else records.mix_keys(phrase_W, languages_W))
    is_found_W &= is_phrase_W
    entry_W = tf.where(is_found_W, place_W, entry_W)
    length_W = tf.where(
        is_found_W, tf.constant(length, tf.int64), length_W)
  return Segments(entry_W, length_W)


def _look_up(keys_K: tf.Tensor, wanted_W: tf.Tensor,
             ) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the place of each key, and whether it is there."""
  place_W = tf.minimum(
      tf.searchsorted(keys_K, wanted_W, out_type=tf.int64),
      tf.size(keys_K, out_type=tf.int64) - 1)
  return place_W, tf.gather(keys_K, place_W) == wanted_W


def draw_segments(words: Words, dictionary: dictionaries.Dictionary,
                  rows_W: tf.Tensor, seed: tf.Tensor,
                  ) -> tuple[Segments, tf.Tensor]:
  """Returns the longest phrase that any language has, and each one's language.

  That is int64 [W], drawn uniformly among those that have the phrase.
  """
  segments = find_segments(words, dictionary.phrases_P, rows_W)
  phrase_W = tf.maximum(segments.entry_W, 0)
  drawn_W = tf.random.stateless_uniform(tf.shape(phrase_W), seed) * tf.cast(
      tf.gather(dictionary.having_counts_P, phrase_W), tf.float32)
  languages_W = tf.gather(
      dictionary.having, tf.cast(drawn_W, tf.int64)
      + tf.gather(dictionary.having_starts_P, phrase_W))
  entry_W, _ = _look_up(dictionary.keys_K, records.mix_keys(
      tf.gather(dictionary.phrases_P, phrase_W), languages_W))
  return segments._replace(entry_W=tf.where(
      segments.entry_W < 0, segments.entry_W, entry_W)), languages_W


def choose_starts(segments: Segments, row_splits: tf.Tensor) -> tf.Tensor:
  """Returns bool [W]: where segments begin, read from left to right.

  Each word points behind the phrase that would start there; the words reached
  from the captions' first words are found by pointer doubling, in as many
  rounds as the logarithm of the longest caption.
  """
  num_words = tf.size(segments.length_W, out_type=tf.int64)
  # One more place, which points at itself: the end.
  jump = tf.concat(
      [tf.range(num_words) + segments.length_W, [num_words]], axis=0)
  reached = tf.tensor_scatter_nd_update(
      tf.zeros([num_words + 1], tf.int32), row_splits[:, tf.newaxis],
      tf.ones_like(row_splits, tf.int32))
  longest = tf.reduce_max(row_splits[1:] - row_splits[:-1])

  def double(reached, jump, span):
    # A caption's last jump lands on the next one's start, which is reached.
    reached = tf.tensor_scatter_nd_max(reached, jump[:, tf.newaxis], reached)
    return reached, tf.gather(jump, jump), span * 2

  reached, _, _ = tf.while_loop(
      lambda reached, jump, span: span < longest + 1, double,
      (reached, jump, tf.constant(1, tf.int64)))
  return reached[:-1] > 0
