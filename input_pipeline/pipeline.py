"""Builds the streams of batches that training consumes.

A stream of rows is of one kind (`streams.KINDS`) and of some datasets; tasks
that ask for the same share it. Every batch is a pure function of the config,
the seed and the step's number: `mixing.deal` says which rows it holds, they are
fetched by number from memory or from the records (`rows.py`), and all
randomness is drawn from stateless seeds. So a stream resumes exactly, from its
saved state or from the step number alone; that state is a counter, however
large the data.
Letters: B rows.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any
import zlib

import ml_collections
import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import rows as rows_lib
from input_pipeline import streams
from m3p_jax import batch as batch_lib

OWN, SHARED = ROWS = ('own', 'shared')


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
      task_configs: task → its `stream`, its global `batch_size`, its `rows` and
        its `data`.
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
    self._makers: dict[str, rows_lib.MakeBatch] = {}
    self._switches = switches
    for name, task in task_configs.items():
      errors.check_choice(
          f'stream (tasks.{name}.stream)', task.stream, streams.KINDS)
      if (key := streams.key(task)) in self._makers:
        continue
      config = streams.data_of(data_config, task)
      if not config.datasets:
        raise errors.UserError(
            f'data.{streams.KINDS[task.stream]}.datasets is empty, but '
            f'tasks.{name} reads it')
      self._makers[key] = rows_lib.make(
          task.stream, config, data_config.data_dir, split, languages,
          parallel=data_config.parallel_reads, switches=switches)
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

    def read(step, key, name, batch_size):
      local = batch_size // num_shards
      rows_B = ((step * num_shards + shard_index) * local +
                tf.range(local, dtype=tf.int64))
      return self._makers[key](
          rows_B, tf.stack([_task_seed(seed, name), rows_B[0]]), switches)

    def make(step: tf.Tensor) -> dict[str, batch_lib.Batch]:
      whole = {key: read(step, key, key, size) for key, size in shared.items()}
      return {name: (
          _every(whole[key], shared[key] // task.batch_size)
          if _is_shared(task) else read(step, key, name, task.batch_size))
              for name, task in task_configs.items()
              for key in [streams.key(task)]}

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
      key = streams.key(task)
      shared[key] = max(shared.get(key, 0), task.batch_size)
  for name, task in task_configs.items():
    if _is_shared(task) and shared[streams.key(task)] % task.batch_size:
      raise errors.UserError(
          f'tasks.{name}.batch_size is {task.batch_size}; allowed: a number '
          f'that divides the {shared[streams.key(task)]} rows that tasks share')
  return shared


def _every(batch: batch_lib.Batch, nth: int) -> batch_lib.Batch:
  """Returns every n-th row: the same ones, however many hosts have parts."""
  return tf.nest.map_structure(
      lambda x: None if x is None else x[::nth], batch) if nth > 1 else batch


def _task_seed(seed: int, task: str) -> np.int64:
  """Returns a seed of its own for each task: equal streams, other rows."""
  return np.int64((seed % 2**31) << 32 | zlib.crc32(task.encode()))
