"""Code-switches captions on token ids, in pure TF ops.

Words of an English caption are replaced by their translations; punctuation
stays with its word, and a phrase of a dictionary goes before its parts.

  python -m input_pipeline.code_switch --dataset=NAME --data_dir=DIR --n=20

prints captions before and after, what was switched in its language's colour,
and how much of the captions each language can translate. It reads all folders
of DIR/dictionaries.

Source: M3P, section 3.2 (every word with probability β); the release's
pre-training replaces exactly one word (`mode='one'`).
Letters: B captions, W words of all captions one after the other.
"""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
from typing import NamedTuple

from absl import flags
import numpy as np
import tensorflow as tf

from input_pipeline import console
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import records
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.dictionaries import ranking

MODES = ('every', 'one')
LANGUAGE_PER = ('caption', 'word')
RULES = ('ours', 'release')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much is switched; see configs/base.py for the meaning of each."""
  rate: float = 0.0
  sentence_rate: float = 1.0
  mode: str = 'every'
  language_per: str = 'caption'
  rule: str = 'ours'


class Segments(NamedTuple):
  """What the dictionary offers for the phrase that starts at each word.

  Attributes:
    entry_W: int64 [W], row of the dictionary; −1 = nothing.
    length_W: int64 [W], words of the phrase; 1 where there is nothing.
  """
  entry_W: tf.Tensor
  length_W: tf.Tensor


class Switched(NamedTuple):
  """Captions after code-switching, word by word.

  Attributes:
    ids: RaggedTensor int32 [W, ids], what stands in each word's place; a
      phrase's translation stands in its first word's.
    is_switched_W: bool [W], where translations begin.
    languages_W: int64 [W], number of the word's target language, from 1.
  """
  ids: tf.RaggedTensor
  is_switched_W: tf.Tensor
  languages_W: tf.Tensor


def switch(words: store.Words, dictionary: dictionaries.Dictionary, *,
           seed: tf.Tensor, settings: Settings, is_source_B: tf.Tensor,
           ) -> tf.RaggedTensor:
  """Returns the captions' token ids [B, ids]; see `switch_words`."""
  ids = switch_words(words, dictionary, seed=seed, settings=settings,
                     is_source_B=is_source_B).ids
  return tf.RaggedTensor.from_row_splits(
      ids.flat_values, tf.gather(ids.row_splits, words.row_splits),
      validate=False)


def switch_words(words: store.Words, dictionary: dictionaries.Dictionary, *,
                 seed: tf.Tensor, settings: Settings, is_source_B: tf.Tensor,
                 ) -> Switched:
  """Returns the captions' words, some of them translated.

  Args:
    seed: int32 [2]; equal seeds and captions give equal results.
    is_source_B: bool [B], False where a caption is not in the dictionary's
      source language and stays as it is.
  """
  rows_W = tf.RaggedTensor.from_row_splits(
      words.keys_W, words.row_splits, validate=False).value_rowids()
  seeds = tf.unstack(tf.random.split(seed, 4))
  if settings.rule == 'release':
    segments, languages_W = _draw_segments(
        words, dictionary, rows_W, seeds[0])
  else:
    languages_W = _draw_languages(dictionary, rows_W, is_source_B, seeds[0],
                                  per=settings.language_per)
    segments = _find_segments(
        words, dictionary.keys_K, rows_W, languages_W)
  is_start_W = _choose_starts(segments, words.row_splits)
  is_switched_W = _draw_switched(
      is_start_W & (segments.entry_W >= 0), rows_W, is_source_B, seeds[1:3],
      settings)
  return Switched(
      _assemble(words, dictionary, segments, is_switched_W, seeds[3],
                is_uniform=settings.rule == 'release'),
      is_switched_W, languages_W)


def _draw_languages(dictionary, rows_W, is_source_B, seed, *, per):
  shape = tf.shape(rows_W if per == 'word' else is_source_B)
  drawn = tf.random.stateless_uniform(
      shape, seed, minval=1, maxval=len(dictionary.languages) + 1,
      dtype=tf.int64)
  return drawn if per == 'word' else tf.gather(drawn, rows_W)


def _draw_switched(can_W, rows_W, is_source_B, seeds, settings: Settings):
  is_chosen_B = is_source_B & (
      tf.random.stateless_uniform(tf.shape(is_source_B), seeds[0]) <
      settings.sentence_rate)
  can_W &= tf.gather(is_chosen_B, rows_W)
  draw_W = tf.random.stateless_uniform(tf.shape(rows_W), seeds[1])
  if settings.mode == 'every':
    return can_W & (draw_W < settings.rate)
  draw_W = tf.where(can_W, draw_W, -1.0)
  highest_B = tf.math.unsorted_segment_max(
      draw_W, rows_W, tf.size(is_source_B))
  return can_W & (draw_W == tf.gather(highest_B, rows_W))


def _find_segments(words: store.Words, keys_K: tf.Tensor, rows_W: tf.Tensor,
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
  for length in range(1, ranking.MAX_WORDS + 1):
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


def _draw_segments(words: store.Words, dictionary: dictionaries.Dictionary,
                   rows_W: tf.Tensor, seed: tf.Tensor,
                   ) -> tuple[Segments, tf.Tensor]:
  """Returns the longest phrase that any language has, and each one's language.

  That is int64 [W], drawn uniformly among those that have the phrase.
  """
  segments = _find_segments(words, dictionary.phrases_P, rows_W)
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


def _choose_starts(segments: Segments, row_splits: tf.Tensor) -> tf.Tensor:
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


def _assemble(words, dictionary, segments, is_switched_W, seed, *, is_uniform):
  num_words = tf.size(words.keys_W, out_type=tf.int64)
  entry_W = tf.maximum(segments.entry_W, 0)
  draw_W = tf.random.stateless_uniform(tf.shape(entry_W), seed)
  if not is_uniform:  # Squared, the first translations come more often.
    draw_W **= 2
  count_W = tf.gather(dictionary.counts_K, entry_W)
  translation_W = tf.gather(dictionary.starts_K, entry_W) + tf.cast(
      draw_W * tf.cast(count_W, tf.float32), count_W.dtype)
  # Words behind the first of a switched phrase; phrases end in their caption.
  first_W = tf.range(num_words)
  covered_W = tf.zeros([num_words], tf.bool)
  for offset in range(1, ranking.MAX_WORDS):
    before_W = tf.maximum(first_W - offset, 0)
    covered_W |= (
        tf.gather(is_switched_W & (segments.length_W > offset), before_W) &
        (first_W >= offset))
  last_W = tf.where(is_switched_W, first_W + segments.length_W - 1, first_W)
  translations = _gather_ranges(
      dictionary.ids, tf.gather(dictionary.id_starts_T, translation_W),
      tf.where(is_switched_W,
               tf.gather(dictionary.id_counts_T, translation_W), 0))
  is_kept_W = ~(is_switched_W | covered_W)
  return tf.concat([
      _take_rows(words.ids, first_W, is_kept_W),
      _take_rows(words.prefix_ids, first_W, is_switched_W),
      translations,
      _take_rows(words.suffix_ids, last_W, is_switched_W)], axis=1)


def _gather_ranges(values, starts, lengths) -> tf.RaggedTensor:
  """Returns the ranges [starts, starts + lengths) of `values` as rows."""
  places = tf.ragged.range(starts, starts + lengths)
  return places.with_values(tf.gather(values, places.values))


def _take_rows(rows: tf.RaggedTensor, indices, is_taken) -> tf.RaggedTensor:
  """Returns the rows of these numbers, emptied where they are not taken."""
  lengths = tf.where(is_taken, tf.gather(rows.row_lengths(), indices), 0)
  return _gather_ranges(
      rows.flat_values, tf.gather(rows.row_starts(), indices), lengths)


def show(switched: Switched, row_splits: Sequence[int],
         languages: Sequence[str],
         decode: Callable[[Sequence[int]], str]) -> list[str]:
  """Returns the captions as lines, translations in their language's colour.

  Args:
    row_splits: the captions' first words, and the end.
    languages: of the dictionary.
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


def coverage(dictionary: dictionaries.Dictionary,
             keys_W: np.ndarray) -> dict[str, tuple[float, float]]:
  """Returns what each language can translate of words with these keys.

  The share of the words, and translations of a word that has any. Articles,
  which dictionaries leave out, do not count.
  """
  left_out = [0] + [tokenizer_lib.word_key(word) for word in ranking.ARTICLES]
  keys_W, found = keys_W[~np.isin(keys_W, left_out)], {}
  for number, language in enumerate(dictionary.languages, start=1):
    wanted_W = records.mix_keys(keys_W, np.int64(number))
    counts_K = dictionary.counts_K[np.isin(dictionary.keys_K, wanted_W)]
    found[language] = (float(np.isin(wanted_W, dictionary.keys_K).mean()),
                       float(counts_K.sum() / max(1, len(counts_K))))
  return found


def read_english(data_dir: str, dataset: str, split: str = 'train',
                 ) -> tuple[store.Captions, np.ndarray, np.ndarray]:
  """Returns captions, the numbers of the English ones, and their words' keys.

  Raises:
    UserError: there are none.
  """
  _, captions = store.read_image_text(data_dir, dataset, split)
  is_english_C = np.array(captions.languages) == tokenizer_lib.SOURCE_LANGUAGE
  if not is_english_C.any():
    raise errors.UserError(
        f'{dataset} has no captions in {tokenizer_lib.SOURCE_LANGUAGE}')
  return captions, np.flatnonzero(is_english_C), captions.keys_W[
      np.repeat(is_english_C, np.diff(captions.word_splits))]


def coverage_lines(folders: Sequence[paths.Path], languages: Sequence[str],
                   keys_W: np.ndarray) -> list[str]:
  """Returns a table of `coverage`: of each folder, and of all together."""
  languages = languages or dictionaries.available(folders)
  columns = {folder.name: [folder] for folder in folders} | {
      'together': folders}
  found = {name: coverage(dictionaries.load(part, [
      code for code in languages if name == 'together'
      or code in dictionaries.available(part)]), keys_W)
           for name, part in columns.items()}
  return ['language' + ''.join(f'{name:>12}' for name in found)
          + '  translations'] + [
      f'{language:8}' + ''.join(
          f'{100 * column[language][0]:10.1f} %' if language in column
          else f'{"-":>12}' for column in found.values())
      + f'{found["together"][language][1]:14.2f}' for language in languages]


def main(argv: Sequence[str]) -> None:
  """Prints captions and what becomes of them, and each language's coverage."""
  console.check_flags(argv, ())
  args = flags.FLAGS
  folders = dictionaries.folders(args.data_dir)
  captions, english, keys_W = read_english(
      args.data_dir, args.dataset, args.split)
  rows_B = np.random.default_rng(args.seed).choice(english, args.n)
  words = store.gather_words(captions, tf.constant(rows_B), max_words=64)
  dictionary = dictionaries.load(
      folders, args.languages or dictionaries.available(folders))
  switched = switch_words(
      words, dictionary, seed=tf.constant([args.seed, 0]),
      settings=Settings(rate=args.rate, mode=args.mode, rule=args.rule,
                        language_per=args.language_per),
      is_source_B=tf.fill([args.n], True))
  lines = show(
      switched, words.row_splits.numpy(), dictionary.languages,
      tokenizer_lib.load().decode)
  for row, line in zip(rows_B, lines, strict=True):
    print(f'{captions.texts[row]}\n    {line}')
  print('\n'.join(coverage_lines(folders, args.languages, keys_W)))


if __name__ == '__main__':
  flags.DEFINE_string('dataset', 'tux_paint', 'Prepared image-text dataset.')
  flags.DEFINE_string('data_dir', 'data', 'Folder of prepared data.')
  flags.DEFINE_string('split', 'train', 'Split to read.')
  flags.DEFINE_list('languages', [], 'Target languages; default: all built.')
  flags.DEFINE_integer('n', 20, 'Number of captions.')
  flags.DEFINE_integer('seed', 0, 'Seed of everything drawn.')
  flags.DEFINE_float('rate', 0.5, 'Probability that a word is replaced.')
  flags.DEFINE_enum('mode', 'every', MODES, 'Each word, or exactly one.')
  flags.DEFINE_enum('rule', 'ours', RULES, "As code_switch.rule's.")
  flags.DEFINE_enum('language_per', 'caption', LANGUAGE_PER,
                    'Draw a language for each caption, or for each word.')
  console.run_main(main)
