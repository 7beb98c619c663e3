"""The part of a checkpoint that is no array: tf.data's position, JSON files."""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import jax
import orbax.checkpoint as ocp


class DataHandler(ocp.CheckpointHandler):
  """Saves the tf.data iterator, and JSON files beside the items' folders."""

  def save(self, directory, args: 'DataSave'):
    if jax.process_index() == 0:
      # The step's folder is still a draft here: the files appear with it.
      for name, content in args.files.items():
        (directory.parent / name).write_text(json.dumps(content, indent=2))
    if args.iterator is not None:
      _iterator_checkpoint(args.iterator).write(_iterator_prefix(directory))

  def restore(self, directory, args: 'DataRestore'):
    _iterator_checkpoint(args.iterator).read(
        _iterator_prefix(directory)).assert_consumed()


@ocp.args.register_with_handler(DataHandler, for_save=True)
@dataclasses.dataclass
class DataSave(ocp.args.CheckpointArgs):
  """An iterator or None, and {file name: JSON content}."""
  iterator: Any
  files: Mapping[str, Any]


@ocp.args.register_with_handler(DataHandler, for_restore=True)
@dataclasses.dataclass
class DataRestore(ocp.args.CheckpointArgs):
  """The iterator to set; it must come from an equal pipeline."""
  iterator: Any


def _iterator_checkpoint(iterator):
  import tensorflow as tf  # Evaluation and search need no TensorFlow.
  return tf.train.Checkpoint(iterator=iterator)


def _iterator_prefix(directory) -> str:
  return str(directory / f'process_{jax.process_index()}')
