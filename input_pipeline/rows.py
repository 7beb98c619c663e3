"""Batches of each kind of rows, from the rows' numbers.

Letters: B rows, C captions or texts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import logging
import ml_collections
import numpy as np
import tensorflow as tf

from input_pipeline import code_switch
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import mixing
from input_pipeline import paths
from input_pipeline import records
from input_pipeline import store
from input_pipeline import streamed
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import batch as batch_lib

ConfigDict = ml_collections.ConfigDict
# Of the rows that tell how many sentences are cut.
_LOOKED_AT = 1024

# (numbers of the rows int64 [B], seed int64 [2], whether words are switched) →
# the batch. The first number of the seed is the task's own.
MakeBatch = Callable[[tf.Tensor, tf.Tensor, bool], batch_lib.Batch]


class _Switch(NamedTuple):
  """Code-switching: from which dictionary, and how much."""
  dictionary: dictionaries.Dictionary
  settings: code_switch.Settings


def make(kind: str, config: ConfigDict, data_dir: str, split: str,
         languages: tuple[str, ...], *, parallel: int,
         switches: bool) -> MakeBatch:
  """Returns what makes batches of a kind.

  Args:
    kind: one of `streams.KINDS`.
    config: see `streams.data_of`.
    data_dir: folder of prepared datasets.
    split: 'train', 'validation' or 'test'.
    languages: a row's language is an index in them.
    parallel: records read at the same time.
    switches: whether captions can be code-switched, as the config says.
  """
  if kind == 'text':
    return _text_maker(config, data_dir, split, languages, parallel)
  if split == 'train':
    split = config.train_split
  datasets = config.datasets
  builders = [store.open_builder(data_dir, name, split) for name in datasets]
  indices = [store.open_index(builder, split) for builder in builders]
  kinds = [records.kind_of(builder.info.features) for builder in builders]
  for dataset, found in zip(datasets, kinds, strict=True):
    _check_kind(kind, dataset, found)
  size = sum(builder.info.splits[split].num_bytes for builder in builders)
  if kind == 'image_text' and size <= config.memory_bytes:
    fetch = _from_memory(data_dir, datasets, split)
  else:
    fetch = streamed.picture_rows(datasets, indices, kinds, parallel=parallel)
  return _caption_maker(
      kind, _plan(kind, config, indices, languages,
                  is_training=split == config.train_split),
      fetch, config.max_length,
      _switch(config.code_switch, data_dir) if switches else None)


def _check_kind(kind: str, dataset: str, found: records.Kind) -> None:
  """Raises UserError where a dataset's records are not of a kind."""
  least = {'image_text': 1, 'labelled': 1, 'pair': 2}.get(kind, 0)
  if found.num_pictures < least:
    raise errors.UserError(
        f'dataset {dataset!r} has {found.num_pictures} pictures a row; '
        f'allowed for the stream {kind!r}: {least}')
  if kind in ('labelled', 'pair') and not found.has_labels:
    raise errors.UserError(
        f'dataset {dataset!r} has no labels; allowed for the stream {kind!r}: '
        'one whose texts have')


def _switch(config: ConfigDict, data_dir: str) -> _Switch | None:
  """Returns the code-switching that the config asks for."""
  errors.check_choice('code_switch.mode', config.mode, code_switch.MODES)
  errors.check_choice('code_switch.language_per', config.language_per,
                      code_switch.LANGUAGE_PER)
  errors.check_choice('code_switch.rule', config.rule, code_switch.RULES)
  is_off = not config.sentence_rate or (
      config.mode == 'every' and not config.rate)
  if is_off:
    return None
  if not config.languages:
    raise errors.UserError(
        'data.image_text.code_switch.languages is empty; name the target '
        'languages or set its rate to 0')
  return _Switch(
      dictionary=dictionaries.load(
          [paths.of(data_dir) / folder for folder in config.dictionary],
          config.languages, shuffle_seed=config.shuffle_seed),
      settings=code_switch.Settings(
          rate=config.rate, sentence_rate=config.sentence_rate,
          mode=config.mode, language_per=config.language_per,
          rule=config.rule))


def _text_maker(config: ConfigDict, data_dir: str, split: str,
                languages: tuple[str, ...], parallel: int) -> MakeBatch:
  """Returns what makes batches of text; args as of `make`."""
  datasets, max_length = config.datasets, config.max_length
  indices = [store.open_index(
      store.open_builder(data_dir, name, split), split,
      column='ids') for name in datasets]
  rows = streamed.text_rows(
      indices, mixing.choose_languages(
          'text', config.languages, languages, datasets,
          [index.languages for index in indices]),
      width=config.concatenate and max_length - 2,
      parallel=parallel)
  deck = mixing.make_deck(rows.sizes, config.alpha)
  language_S = tf.constant(
      [languages.index(language) for language in rows.languages], tf.int32)

  def fetch(rows_B, seed):
    stream_B, item_B = mixing.deal(deck, rows_B, seed)
    return rows.fetch(stream_B, item_B), tf.gather(language_S, stream_B)

  if split == 'train' and not config.concatenate:
    _log_cut('text', fetch(tf.range(_LOOKED_AT, dtype=tf.int64), np.int64(0))[
        0].row_lengths().numpy(), max_length)

  def make(rows_B: tf.Tensor, seed: tf.Tensor,
           switches: bool) -> batch_lib.Batch:
    del switches  # Sentences never are.
    ids, language_B = fetch(rows_B, seed[0])
    return batch_lib.Batch(*store.pad_ids(ids, max_length), language_B)

  return tf.function(make, autograph=False)


class _Plan(NamedTuple):
  """Which captions are read, and what is known of all: tensors.

  Attributes:
    items: what is dealt.
    deck: by which it is.
    sources: of the captions; None = they are read without.
    language_C: int32 [C], index of each caption's language; -1 = unknown.
    is_english_C: bool [C], whether a caption can be code-switched.
  """
  items: mixing.Items
  deck: mixing.Deck
  sources: mixing.Sources | None
  language_C: tf.Tensor
  is_english_C: tf.Tensor


def _plan(kind: str, config: ConfigDict, indices: Sequence[index_lib.Pictures],
          languages: tuple[str, ...], *, is_training: bool) -> _Plan:
  """Returns which captions a stream reads.

  Args:
    kind: one of `streams.KINDS`, as are other arguments those of `make`.
    indices: of the datasets.
    is_training: whether rows are of the split that is trained on.
  """
  read = mixing.choose_languages(
      'image_text', config.languages, languages, config.datasets,
      [index.languages for index in indices])
  rows = [(np.array(index.languages)[index.language_C],
           np.repeat(np.arange(len(index.file_N)), index.num_captions_N))
          for index in indices]
  names_C = np.concatenate([names for names, _ in rows])
  if is_training:
    _log_cut('image_text', np.concatenate([
        index.num_ids_C for index in indices])[np.isin(names_C, read)],
             config.max_length)
  sources = None
  if kind == 'parallel':
    sources, rows = _translated(config, rows, read, languages)
  items = mixing.make_items(
      read, languages, rows, shots=config.shots if is_training else 0)
  number = {name: i for i, name in enumerate(languages)}
  return _Plan(
      _to_tensors(items), mixing.make_deck(items.sizes, config.alpha),
      _to_tensors(sources),
      tf.constant([number.get(name, -1) for name in names_C], tf.int32),
      tf.constant(names_C == tokenizer_lib.SOURCE_LANGUAGE))


def _caption_maker(kind: str, plan: _Plan, fetch: streamed.Fetch,
                   max_length: int, switch: _Switch | None) -> MakeBatch:
  """Returns what makes batches of captions.

  Args:
    kind: one of `streams.KINDS`.
    plan: which captions.
    fetch: reads their rows.
    max_length: ids of a text, `<s>` and `</s>` included.
    switch: how English captions are code-switched; None = not at all.
  """
  if switch:
    switch = switch._replace(dictionary=_to_tensors(switch.dictionary))

  def ids_of(found, caption_B, seed, switches):
    words = store.gather_words(found.captions, caption_B + found.shift_B,
                               max_words=max_length - 2)
    ids = code_switch.switch(
        words, switch.dictionary, seed=seed, settings=switch.settings,
        is_source_B=tf.gather(plan.is_english_C, caption_B)) if (
            switch and switches) else store.unswitched(words)
    return store.pad_ids(ids, max_length)

  def make(rows_B: tf.Tensor, seed: tf.Tensor,
           switches: bool) -> batch_lib.Batch:
    caption_B, language_B = mixing.draw(
        plan.items, plan.deck, rows_B, seed[0])
    found = fetch(caption_B)
    extra: dict[str, Any] = {}
    if plan.sources:
      source_B = mixing.draw_source(plan.sources, caption_B, rows_B, seed[0])
      # Another number, so that other words of it are switched.
      source_seed = tf.stack([records.mix_keys(seed[0], np.int64(-3)), seed[1]])
      extra |= zip(('source_ids_BL', 'source_mask_BL'), ids_of(
          found, source_B, source_seed, switches), strict=True)
      extra['source_language_B'] = tf.gather(plan.language_C, source_B)
    if kind in ('labelled', 'pair'):
      extra['label_B'] = found.label_B
    if kind == 'pair':
      extra['second'] = found.regions[1]
    token_ids_BL, text_mask_BL = ids_of(found, caption_B, seed, switches)
    return batch_lib.Batch(
        token_ids_BL, text_mask_BL, language_B,
        found.regions[0] if found.regions else None, extra)

  # Tasks with batches of one size share the traced function.
  return tf.function(make, autograph=False)


def _translated(config: ConfigDict, rows: Any, read: Sequence[str],
                languages: tuple[str, ...]) -> tuple[mixing.Sources, Any]:
  """Returns the captions' sources, and the rows without those that have none.

  Raises:
    UserError: a language that the model does not know, or no caption has any.
  """
  for language in config.sources:
    errors.check_choice(
        'language in data.image_text.sources', language, languages)
  sources = mixing.find_sources(rows, config.sources)
  ends = np.cumsum([len(names) for names, _ in rows])[:-1]
  rows = [(np.where(count_C > 0, names, ''), group_C) for (
      names, group_C), count_C in zip(
          rows, np.split(sources.count_C, ends), strict=True)]
  if not any(np.isin(names, read).any() for names, _ in rows):
    raise errors.UserError(
        f'{", ".join(config.datasets)}: no text in {", ".join(read)} has '
        f'another beside it in {", ".join(config.sources) or "no language"} '
        '(data.image_text.sources)')
  return sources, rows


def _from_memory(data_dir, datasets: Sequence[str],
                 split: str) -> streamed.Fetch:
  pictures, captions = zip(*(
      store.read_image_text(data_dir, name, split) for name in datasets),
                           strict=True)
  captions = _to_tensors(store.join_captions(
      captions, [len(part.image_ids) for part in pictures]))
  pictures = _to_tensors(store.join_pictures(datasets, pictures))

  def fetch(caption_B):
    return streamed.Rows(
        captions, tf.zeros_like(caption_B), (store.gather_regions(
            pictures, tf.gather(captions.picture_C, caption_B)),))

  return fetch


def _to_tensors(value):
  """Returns a named tuple with its NumPy arrays made tensors.

  Tensors are captured once; arrays would be copied into every graph.
  """
  if isinstance(value, np.ndarray):
    return tf.constant(value)
  if isinstance(value, tuple) and hasattr(value, '_fields'):
    return type(value)(*map(_to_tensors, value))
  return value


def _log_cut(stream: str, num_ids_C: np.ndarray, max_length: int) -> None:
  """Logs how many of these texts are cut, before any is code-switched."""
  if count := int((num_ids_C > max_length - 2).sum()):
    logging.warning(
        '%d of %d texts have more than data.%s.max_length = %d ids: what is '
        'beyond is not trained on', count, len(num_ids_C), stream, max_length)
