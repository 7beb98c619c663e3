"""Reads a prepared split whose texts have classes, text by text.

Letters: C texts of the split, B of those read together, L text length.
"""

from collections.abc import Callable, Sequence
import os

import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import languages as languages_lib
from input_pipeline import records
from input_pipeline import store
from input_pipeline import streamed
from m3p_jax import batch as batch_lib

# Records read at the same time.
_AT_ONCE = 16


class LabelledSet:
  """The texts of a split, and their pictures in the records.

  Attributes:
    texts: language → numbers of its texts in the split.
    item_C: int64 [C], number of each text's record.
    num_pictures: of a text.
    max_length: L.
  """

  def __init__(self, data_dir: str | os.PathLike[str], dataset: str, split: str,
               languages: Sequence[str], max_length: int = 0, *,
               text_room: Callable[[int], int] | None = None):
    """Opens a split.

    Args:
      data_dir: folder of prepared datasets.
      dataset: name of one whose texts have labels.
      split: 'train', 'validation' or 'test', or one of few shots.
      languages: of the texts; ('all',) = all that the split has.
      max_length: L; longer texts are cut. 0 = what the longest needs.
      text_room: as of `evaluation_set.load`.

    Raises:
      UserError: dataset, split or a language is not there, or has no labels, or
        the model has no positions for texts beside the regions.
    """
    builder = store.open_builder(data_dir, dataset, split)
    index = store.open_index(builder, split)
    kind = records.kind_of(builder.info.features)
    if not kind.has_labels:
      raise errors.UserError(
          f'dataset {dataset!r} has no labels; allowed: one whose texts have')
    names_C = np.array(index.languages)[index.language_C]
    there = sorted(set(names_C))
    if tuple(languages) == (languages_lib.ALL,):
      languages = there
    for language in languages:
      errors.check_choice(f'language of {dataset} ({split})', language, there)
    self.texts = {name: np.flatnonzero(names_C == name) for name in languages}
    self.item_C = np.repeat(np.arange(len(index.file_N)), index.num_captions_N)
    self.num_pictures = kind.num_pictures
    self.max_length = evaluation_set.width(
        int(index.num_ids_C.max(initial=1)), int(index.num_regions_N.max()),
        max_length, text_room)
    self._fetch = tf.function(
        streamed.picture_rows([dataset], [index], [kind], parallel=_AT_ONCE),
        input_signature=[tf.TensorSpec([None], tf.int64)])

  def read(self, text_B: np.ndarray) -> batch_lib.Batch:
    """Returns the texts of these numbers with pictures and labels, in NumPy."""
    found = self._fetch(text_B)
    words = store.gather_words(
        found.captions, text_B + found.shift_B, max_words=self.max_length - 2)
    token_ids_BL, text_mask_BL = store.pad_ids(
        store.unswitched(words), self.max_length)
    first, *second = (
        batch_lib.Regions(*(tensor.numpy() for tensor in regions))
        for regions in found.regions)
    # The joint pass has no language.
    return batch_lib.Batch(
        token_ids_BL.numpy(), text_mask_BL.numpy(), None, first,
        {'label_B': found.label_B.numpy()}
        | ({'second': second[0]} if second else {}))
