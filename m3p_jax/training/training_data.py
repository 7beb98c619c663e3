"""What the training loop reads: batches, and how often what occurs in them."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import config_check
from m3p_jax.objectives import frequencies
from m3p_jax.training import start as start_lib

ConfigDict = ml_collections.ConfigDict
# Rows of each stream whose tokens and classes are counted.
_COUNTED_ROWS = 16_384
_COUNTED_ROWS_PER_BATCH = 256


def open_train(config: ConfigDict, languages: tuple[str, ...]):
  """Returns the training split, a `pipeline.Streams`, read once.

  Args:
    config: of the run.
    languages: a language's id is its index here.
  """
  return _pipeline().Streams(
      config.data, config.tasks, split='train', languages=languages)


def train(streams, config: ConfigDict):
  """Returns this host's share of the training batches, a tf.data.Dataset.

  Args:
    streams: of `open_train`.
    config: of the run.
  """
  return streams.dataset(config.tasks, seed=config.seed, **_share())


def validation(config: ConfigDict, languages: tuple[str, ...]):
  """Returns this host's share of the validation batches: equal every time."""
  return _pipeline().build_validation(
      config.data, config.tasks, seed=0, batches=config.eval_batches,
      languages=languages, **_share())


def shapes(dataset) -> dict[str, batch_lib.Batch]:
  """Returns {task: Batch} of `jax.ShapeDtypeStruct`, as `take` will return."""
  import tensorflow as tf

  def shape(spec):
    if isinstance(spec, tf.TensorSpec):
      return jax.ShapeDtypeStruct(
          tuple(spec.shape), spec.dtype.as_numpy_dtype)
    return None  # A task without pictures.

  return jax.tree.map(shape, dataset.element_spec)


def check_lengths(dataset, max_positions: int) -> None:
  """Raises UserError for rows longer than the model has positions for.

  JAX would give the last position to every token beyond it.
  """
  for name, rows in shapes(dataset).items():
    length = rows.token_ids_BL.shape[1]
    num_regions = rows.regions.mask_BR.shape[1] if rows.regions else 0
    if num_regions + length > max_positions:
      raise errors.UserError(
          f'rows of tasks.{name} have {num_regions} regions and {length} '
          'tokens (max_length of its stream), but model.max_positions is '
          f'{max_positions}; allowed: {max_positions} together')


def take(iterator: Iterator[Any]) -> dict[str, batch_lib.Batch]:
  """Returns the next {task: Batch} of a tf.data iterator, as NumPy."""
  return to_numpy(next(iterator))


def to_numpy(batches: Any) -> dict[str, batch_lib.Batch]:
  """Returns tensors as NumPy arrays."""
  return jax.tree.map(lambda tensor: tensor.numpy(), batches)


def count(streams, config: ConfigDict, start: start_lib.Start,
          ) -> dict[str, frequencies.Frequencies]:
  """Returns the frequencies of each stream, {} where nothing reads them.

  Without code-switching, like the validation split: a baseline that knew
  foreign words, which never come there, would be easier to beat.

  Args:
    streams: of `open_train`.
    config: of the run.
    start: what the run begins with.
  """
  if not (config.eval_batches or config.fit_first_values):
    return {}
  if not any(config_check.takes_baseline(config_check.find_loss(name, task))
             for name, task in config.tasks.items()):
    return {}
  tasks = {
      task.stream: ConfigDict({'stream': task.stream,
                               'batch_size': _COUNTED_ROWS_PER_BATCH})
      for task in config.tasks.values()}
  # The same rows on every host: all begin with the same values.
  source = iter(streams.dataset(tasks, seed=config.seed, switches=False))
  return frequencies.count(
      (take(source) for _ in range(_COUNTED_ROWS // _COUNTED_ROWS_PER_BATCH)),
      vocab_size=start.config.padded_vocab_size,
      num_classes=start.config.num_region_classes)


def _share() -> dict[str, int]:
  return dict(shard_index=jax.process_index(), num_shards=jax.process_count())


def _pipeline():
  # Slow to import, and modes that need no data never do.
  import tensorflow as tf

  from input_pipeline import pipeline
  # The accelerator's memory is JAX's.
  tf.config.set_visible_devices([], 'GPU')
  return pipeline
