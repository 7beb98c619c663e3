"""Builds the stream of batches that training consumes.

Every batch is a pure function of the config, the seed and the step's number:
`deal` says which rows it holds, they are fetched by number from memory or from
the records, and all randomness is drawn from stateless seeds. So a stream
resumes exactly, from its saved state or from the step number alone; that state
is a counter, however large the data.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any
import zlib

import ml_collections
import numpy as np
import tensorflow as tf

from input_pipeline import code_switch
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import streams as streams_lib
from m3p_jax import batch as batch_lib

STREAMS = ('text', 'image_text')


class Streams:
  """The streams of one split, read once: several datasets are made of them."""

  def __init__(self, data_config: ml_collections.ConfigDict,
               task_configs: Mapping[str, Any], *, split: str,
               languages: Sequence[str] | None = None, switches: bool = True):
    """Reads what the tasks' streams need.

    Args: as `build`, and
      split: 'train', 'validation' or 'test'.
      switches: whether datasets can be code-switched.

    Raises:
      UserError: a dataset, language, dictionary or option that is not there.
    """
    # TensorFlow's own optimizer, of the whole process, takes seconds for each
    # iterator, and makes none of them faster.
    tf.config.optimizer.set_experimental_options(
        {'disable_meta_optimizer': True})
    self._makers = _makers(
        data_config, task_configs, languages, split=split, switches=switches)
    self._switches = switches

  def dataset(self, task_configs: Mapping[str, Any], *, seed: int,
              steps: int | None = None, switches: bool = True,
              shard_index: int = 0, num_shards: int = 1) -> tf.data.Dataset:
    """Returns a dataset of {task: Batch}.

    Args: as `build`, and
      steps: how many batches; None = without end.

    Raises:
      UserError: a batch size that the hosts cannot share.
    """
    for name, task in task_configs.items():
      if task.batch_size % num_shards:
        raise errors.UserError(
            f'tasks.{name}.batch_size is {task.batch_size}; it must be a '
            f'multiple of the number of hosts, {num_shards}')
    switches = switches and self._switches

    def make(step: tf.Tensor) -> dict[str, batch_lib.Batch]:
      batches = {}
      for name, task in task_configs.items():
        local = task.batch_size // num_shards
        rows_B = ((step * num_shards + shard_index) * local +
                  tf.range(local, dtype=tf.int64))
        batches[name] = self._makers[task.stream](
            rows_B, tf.stack([_task_seed(seed, name), rows_B[0]]), switches)
      return batches

    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    options.deterministic = True
    # Nothing here needs AutoGraph, which takes seconds to say so.
    make = tf.autograph.experimental.do_not_convert(make)
    numbers = (tf.data.Dataset.counter() if steps is None
               else tf.data.Dataset.range(steps))
    return numbers.map(make, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        2).with_options(options)


def build(data_config: ml_collections.ConfigDict,
          task_configs: Mapping[str, Any], *, seed: int,
          languages: Sequence[str] | None = None, switches: bool = True,
          shard_index: int = 0, num_shards: int = 1) -> tf.data.Dataset:
  """Returns an infinite dataset of {task: Batch}, training split.

  Args:
    data_config: `config.data` of configs/base.py.
    task_configs: task → its `stream` and its global `batch_size`.
    seed: seed of order, choice of captions and code-switching.
    languages: all languages; a row's language is an index in them. Default:
      `data_config.languages`.
    switches: code-switch as the config says; else not at all.
    shard_index: number of this host.
    num_shards: hosts that share each batch; the rows of all together do not
      depend on it.

  Raises:
    UserError: a dataset, language, dictionary or option that is not there, or
      a batch size that the hosts cannot share.
  """
  streams = Streams(data_config, task_configs, split='train',
                    languages=languages, switches=switches)
  return streams.dataset(task_configs, seed=seed, shard_index=shard_index,
                         num_shards=num_shards)


def build_validation(data_config: ml_collections.ConfigDict,
                     task_configs: Mapping[str, Any], *, seed: int,
                     batches: int, languages: Sequence[str] | None = None,
                     switches: bool = False, shard_index: int = 0,
                     num_shards: int = 1) -> tf.data.Dataset:
  """Returns a dataset of `batches` times {task: Batch}, always the same.

  Args: as `build`, on the validation split, and
    batches: number of batches.
    switches: code-switch as the config says; else not at all.
  """
  streams = Streams(data_config, task_configs, split='validation',
                    languages=languages, switches=switches)
  return streams.dataset(
      task_configs, seed=seed, steps=batches, shard_index=shard_index,
      num_shards=num_shards)


def _task_seed(seed: int, task: str) -> np.int64:
  """Returns a seed of its own for each task: equal streams, other rows."""
  return np.int64((seed % 2**31) << 32 | zlib.crc32(task.encode()))


def _makers(data_config, task_configs, languages, *, split: str,
            switches: bool) -> dict[str, streams_lib.MakeBatch]:
  """Returns what makes the batches of each stream that a task uses."""
  languages = tuple(languages or data_config.languages)
  makers = {}
  for name, task in task_configs.items():
    errors.check_choice(f'stream (tasks.{name}.stream)', task.stream, STREAMS)
    if task.stream in makers:
      continue
    stream = data_config[task.stream]
    if not stream.datasets:
      raise errors.UserError(
          f'data.{task.stream}.datasets is empty, but tasks.{name} reads it')
    for language in stream.languages:
      errors.check_choice(f'language in data.{task.stream}.languages', language,
                          languages)
    if task.stream == 'text':
      makers['text'] = streams_lib.text_maker(
          data_config.data_dir, split, languages,
          datasets=stream.datasets, languages=stream.languages,
          alpha=stream.alpha, max_length=stream.max_length,
          concatenate=stream.concatenate)
    else:
      makers['image_text'] = streams_lib.image_text_maker(
          data_config.data_dir, split, languages,
          datasets=stream.datasets, languages=stream.languages,
          alpha=stream.alpha, max_length=stream.max_length,
          switch=_switch(data_config) if switches else None,
          memory_bytes=stream.memory_bytes,
          shots=stream.shots if split == 'train' else 0)
  return makers


def _switch(data_config) -> streams_lib.Switch | None:
  """Returns the code-switching that the config asks for."""
  config = data_config.image_text.code_switch
  errors.check_choice('code_switch.mode', config.mode, code_switch.MODES)
  errors.check_choice('code_switch.language_per', config.language_per,
                      code_switch.LANGUAGE_PER)
  is_off = not config.sentence_rate or (
      config.mode == 'every' and not config.rate)
  if is_off:
    return None
  if not config.languages:
    raise errors.UserError(
        'data.image_text.code_switch.languages is empty; name the target '
        'languages or set its rate to 0')
  return streams_lib.Switch(
      dictionary=dictionaries.load(
          pathlib.Path(data_config.data_dir) / config.dictionary,
          config.languages, shuffle_seed=config.shuffle_seed),
      settings=code_switch.Settings(
          rate=config.rate, sentence_rate=config.sentence_rate,
          mode=config.mode, language_per=config.language_per))
