"""Builds the streams of batches that training consumes.

Two streams: text alone, and pictures with text. Every batch is a pure function
of the config, the seed and the step's number: `mixing.deal` says which rows it
holds, they are fetched by number from memory or from the records, and all
randomness is drawn from stateless seeds. So a stream resumes exactly, from its
saved state or from the step number alone; that state is a counter, however
large the data.
Letters: B rows, C captions or texts.
"""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any, NamedTuple
import zlib

from absl import logging
import ml_collections
import numpy as np
import tensorflow as tf

from input_pipeline import captions as captions_lib
from input_pipeline import code_switch
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import mixing
from input_pipeline import paths
from input_pipeline import phrases
from input_pipeline import store
from input_pipeline import streamed
from m3p_jax import batch as batch_lib

STREAMS = ('text', 'image_text')
OWN, SHARED = ROWS = ('own', 'shared')
# Of the rows that tell how many sentences are cut.
_LOOKED_AT = 1024

# (numbers of the rows int64 [B], seed int64 [2], whether words are switched) →
# the batch. The first number of the seed is the task's own.
_MakeBatch = Callable[[tf.Tensor, tf.Tensor, bool], batch_lib.Batch]


class _Switch(NamedTuple):
  """Code-switching: from which dictionary, and how much."""
  dictionary: dictionaries.Dictionary
  settings: code_switch.Settings


def build(data_config: ml_collections.ConfigDict,
          task_configs: Mapping[str, Any], *, seed: int, split: str = 'train',
          **options: Any) -> tf.data.Dataset:
  """Returns a dataset of {task: Batch}; see `Streams`, and its `dataset`."""
  return Streams(data_config, task_configs, split=split).dataset(
      task_configs, seed=seed, **options)


class Streams:
  """The streams of one split, read once: several datasets are made of them."""

  def __init__(self, data_config: ml_collections.ConfigDict,
               task_configs: Mapping[str, Any], *, split: str,
               languages: Sequence[str] | None = None, switches: bool = True):
    """Reads what the tasks' streams need.

    Args:
      data_config: `config.data` of configs/base.py.
      task_configs: task → its `stream`, its global `batch_size` and its `rows`.
      split: 'train', 'validation' or 'test'.
      languages: all languages; a row's language is an index in them. Default:
        `data_config.languages`.
      switches: whether datasets can be code-switched, as the config says.

    Raises:
      UserError: a dataset, language, dictionary or option that is not there.
    """
    # TensorFlow's own optimizer, of the whole process, takes seconds for each
    # iterator, and makes none of them faster.
    tf.config.optimizer.set_experimental_options(
        {'disable_meta_optimizer': True})
    languages = tuple(languages or data_config.languages)
    self._makers: dict[str, _MakeBatch] = {}
    self._switches = switches
    for name, task in task_configs.items():
      errors.check_choice(f'stream (tasks.{name}.stream)', task.stream, STREAMS)
      if task.stream in self._makers:
        continue
      stream = data_config[task.stream]
      if not stream.datasets:
        raise errors.UserError(
            f'data.{task.stream}.datasets is empty, but tasks.{name} reads it')
      if task.stream == 'text':
        make = _text_maker(data_config, split, languages)
      else:
        make = _image_text_maker(
            data_config, split, languages,
            _switch(data_config) if switches else None)
      self._makers[task.stream] = make
    self._threads = data_config.parallel_reads + (os.cpu_count() or 1)

  def dataset(self, task_configs: Mapping[str, Any], *, seed: int,
              steps: int | None = None, switches: bool = True,
              shard_index: int = 0, num_shards: int = 1) -> tf.data.Dataset:
    """Returns a dataset of {task: Batch}.

    Args:
      task_configs: as above, on the same streams.
      seed: of order, choice of captions and code-switching.
      steps: how many batches; None = without end.
      switches: code-switch as the config says; else not at all.
      shard_index: number of this host.
      num_shards: hosts that share each batch; the rows of all together do not
        depend on it, but for which words are switched.

    Raises:
      UserError: a batch size that the hosts, or tasks, cannot share.
    """
    for name, task in task_configs.items():
      if task.batch_size % num_shards:
        raise errors.UserError(
            f'tasks.{name}.batch_size is {task.batch_size}; it must be a '
            f'multiple of the number of hosts, {num_shards}')
    shared = _shared_rows(task_configs)
    switches = switches and self._switches

    def read(step, stream, name, batch_size):
      local = batch_size // num_shards
      rows_B = ((step * num_shards + shard_index) * local +
                tf.range(local, dtype=tf.int64))
      return self._makers[stream](
          rows_B, tf.stack([_task_seed(seed, name), rows_B[0]]), switches)

    def make(step: tf.Tensor) -> dict[str, batch_lib.Batch]:
      whole = {stream: read(step, stream, stream, size)
               for stream, size in shared.items()}
      return {name: (
          _every(whole[task.stream], shared[task.stream] // task.batch_size)
          if _is_shared(task)
          else read(step, task.stream, name, task.batch_size))
              for name, task in task_configs.items()}

    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    options.deterministic = True
    # Else as many reads wait at the same time as there are cores.
    options.threading.private_threadpool_size = self._threads
    # Nothing here needs AutoGraph, which takes seconds to say so.
    make = tf.autograph.experimental.do_not_convert(make)
    numbers = (tf.data.Dataset.counter() if steps is None
               else tf.data.Dataset.range(steps))
    return numbers.map(make, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        2).with_options(options)


def _is_shared(task: Any) -> bool:
  return task.get('rows', OWN) == SHARED


def _shared_rows(task_configs: Mapping[str, Any]) -> dict[str, int]:
  """Returns how many rows of each stream its tasks share.

  Raises:
    UserError: a task cannot have every n-th of them.
  """
  shared: dict[str, int] = {}
  for name, task in task_configs.items():
    errors.check_choice(
        f'rows (tasks.{name}.rows)', task.get('rows', OWN), ROWS)
    if _is_shared(task):
      shared[task.stream] = max(shared.get(task.stream, 0), task.batch_size)
  for name, task in task_configs.items():
    if _is_shared(task) and shared[task.stream] % task.batch_size:
      raise errors.UserError(
          f'tasks.{name}.batch_size is {task.batch_size}; allowed: a number '
          f'that divides the {shared[task.stream]} rows that tasks share')
  return shared


def _every(batch: batch_lib.Batch, nth: int) -> batch_lib.Batch:
  """Returns every n-th row: the same ones, however many hosts have parts."""
  return tf.nest.map_structure(
      lambda x: None if x is None else x[::nth], batch) if nth > 1 else batch


def _task_seed(seed: int, task: str) -> np.int64:
  """Returns a seed of its own for each task: equal streams, other rows."""
  return np.int64((seed % 2**31) << 32 | zlib.crc32(task.encode()))


def _switch(data_config) -> _Switch | None:
  """Returns the code-switching that the config asks for."""
  config = data_config.image_text.code_switch
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
          [paths.of(data_config.data_dir) / folder
           for folder in config.dictionary],
          config.languages, shuffle_seed=config.shuffle_seed),
      settings=code_switch.Settings(
          rate=config.rate, sentence_rate=config.sentence_rate,
          mode=config.mode, language_per=config.language_per,
          rule=config.rule))


def _text_maker(data_config: ml_collections.ConfigDict, split: str,
                languages: tuple[str, ...]) -> _MakeBatch:
  """Returns what makes batches of text.

  Args:
    languages: a row's language is an index in them.
  """
  config = data_config.text
  datasets, max_length = config.datasets, config.max_length
  indices = [store.open_index(
      store.open_builder(data_config.data_dir, name, split), split,
      column='ids') for name in datasets]
  rows = streamed.text_rows(
      indices, mixing.choose_languages(
          'text', config.languages, languages, datasets,
          [index.languages for index in indices]),
      width=config.concatenate and max_length - 2,
      parallel=data_config.parallel_reads)
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


def _image_text_maker(data_config: ml_collections.ConfigDict, split: str,
                      languages: tuple[str, ...],
                      switch: _Switch | None) -> _MakeBatch:
  """Returns what makes batches of pictures with captions.

  Args:
    languages: a row's language is an index in them.
    switch: how English captions are code-switched; None = not at all.
  """
  config, data_dir = data_config.image_text, data_config.data_dir
  datasets, max_length = config.datasets, config.max_length
  builders = [store.open_builder(data_dir, name, split) for name in datasets]
  indices = [store.open_index(builder, split) for builder in builders]
  size = sum(builder.info.splits[split].num_bytes for builder in builders)
  if size <= config.memory_bytes:
    fetch = _from_memory(data_dir, datasets, split)
  else:
    fetch = streamed.picture_rows(
        datasets, indices, list(map(store.storage_of, builders)),
        parallel=data_config.parallel_reads)
  read = mixing.choose_languages(
      'image_text', config.languages, languages, datasets,
      [index.languages for index in indices])
  rows = [(np.array(index.languages)[index.language_C],
           np.repeat(np.arange(len(index.file_N)), index.num_captions_N))
          for index in indices]
  caption_languages_C = np.concatenate([names for names, _ in rows])
  if split == 'train':
    _log_cut('image_text', np.concatenate([
        index.num_ids_C for index in indices])[
            np.isin(caption_languages_C, read)], max_length)
  items = mixing.make_items(
      read, languages, rows, shots=config.shots if split == 'train' else 0)
  deck = mixing.make_deck(items.sizes, config.alpha)
  is_source_C = tf.constant(
      caption_languages_C == captions_lib.SOURCE_LANGUAGE)
  items = _to_tensors(items)
  if switch:
    switch = switch._replace(dictionary=_to_tensors(switch.dictionary))

  def make(rows_B: tf.Tensor, seed: tf.Tensor,
           switches: bool) -> batch_lib.Batch:
    caption_B, language_B = mixing.draw(items, deck, rows_B, seed[0])
    captions, place_B, regions = fetch(caption_B)
    words = store.gather_words(captions, place_B, max_words=max_length - 2)
    if switch and switches:
      ids = code_switch.switch(
          words, switch.dictionary, seed=seed, settings=switch.settings,
          is_source_B=tf.gather(is_source_C, caption_B))
    else:
      ids = phrases.unswitched(words)
    token_ids_BL, text_mask_BL = store.pad_ids(ids, max_length)
    return batch_lib.Batch(token_ids_BL, text_mask_BL, language_B, regions)

  # Tasks with batches of one size share the traced function.
  return tf.function(make, autograph=False)


def _from_memory(data_dir, datasets: Sequence[str],
                 split: str) -> streamed.Fetch:
  pictures, captions = zip(*(
      store.read_image_text(data_dir, name, split) for name in datasets),
                           strict=True)
  captions = _to_tensors(store.join_captions(
      captions, [len(part.image_ids) for part in pictures]))
  pictures = _to_tensors(store.join_pictures(datasets, pictures))

  def fetch(caption_B):
    return captions, caption_B, store.gather_regions(
        pictures, tf.gather(captions.picture_C, caption_B))

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
