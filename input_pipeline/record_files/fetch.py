"""Where the rows of an image-text stream come from: memory, or the records.

Both give the same rows. Letters: B rows, C captions.
"""

from collections.abc import Callable, Sequence
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import examples
from input_pipeline.record_files import join
from input_pipeline.record_files import prepared
from input_pipeline.record_files import store
from input_pipeline.record_files import streamed
from m3p_jax import batch as batch_lib

# caption_B int64 [B] → captions, the rows' numbers in them int64 [B], and the
# rows' regions.
Fetch = Callable[[tf.Tensor], tuple[
    store.Captions | store.CaptionWords, tf.Tensor, batch_lib.Regions]]


class Source(NamedTuple):
  """The pictures and captions of one split of some datasets.

  Attributes:
    languages: for each dataset an array [C] of its captions' languages.
    pictures: for each dataset int64 [C], its captions' pictures.
    num_ids_C: ids of each caption; None where they are not in memory.
    fetch: gets rows by the numbers of their captions, which run on from one
      dataset to the next.
  """
  languages: list[np.ndarray]
  pictures: list[np.ndarray]
  num_ids_C: np.ndarray | None
  fetch: Fetch


def find(data_dir: str | os.PathLike[str], datasets: Sequence[str],
         split: str, *, memory_bytes: int) -> Source:
  """Returns the source of a stream's rows.

  Args:
    data_dir: folder of prepared datasets.
    datasets: names of image-text datasets.
    split: 'train', 'validation' or 'test'.
    memory_bytes: of larger records, each row is read when it is needed.

  Raises:
    UserError: a dataset is not prepared or has no such split, or datasets
      whose features do not fit together.
  """
  builders = [prepared.open_builder(data_dir, name, split) for name in datasets]
  size = sum(builder.info.splits[split].num_bytes for builder in builders)
  make = _from_memory if size <= memory_bytes else _from_records
  return make(data_dir, datasets, split)


def _from_memory(data_dir, datasets: Sequence[str], split: str) -> Source:
  pictures, captions = zip(*(
      store.read_image_text(data_dir, name, split) for name in datasets),
                           strict=True)
  rows = Source([np.array(part.languages) for part in captions],
                [part.picture_C for part in captions],
                np.concatenate([np.diff(part.ids.splits[part.word_splits])
                                for part in captions]), fetch=None)
  captions = join.captions(
      captions, [len(part.image_ids) for part in pictures])
  # Tensors are captured once; arrays would be copied into every graph.
  pictures, captions = map(
      to_tensors, (join.pictures(datasets, pictures), captions))

  def fetch(caption_B):
    return captions, caption_B, examples.gather_regions(
        pictures, tf.gather(captions.picture_C, caption_B))

  return rows._replace(fetch=fetch)


def _from_records(data_dir, datasets: Sequence[str], split: str) -> Source:
  indices, records = streamed.find(data_dir, datasets, split)
  return Source(
      [np.array(index.languages)[index.language_C] for index in indices],
      [np.repeat(np.arange(len(index.num_captions_N)), index.num_captions_N)
       for index in indices],
      None, streamed.make_fetch(records))


def to_tensors(value):
  """Returns a named tuple with its NumPy arrays made tensors."""
  if isinstance(value, np.ndarray):
    return tf.constant(value)
  if isinstance(value, tuple) and hasattr(value, '_fields'):
    return type(value)(*map(to_tensors, value))
  return value
