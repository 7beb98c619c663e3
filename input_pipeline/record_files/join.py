"""Joins the records of several datasets into one numbering."""

from collections.abc import Sequence

import numpy as np

from input_pipeline import errors
from input_pipeline import tokenizer
from input_pipeline.record_files import store


def rows(parts: Sequence[store.Ragged]) -> store.Ragged:
  """Returns the rows of all parts, one part after the other."""
  offsets = np.cumsum([0] + [len(part.values) for part in parts])
  return store.Ragged(
      np.concatenate([part.values for part in parts]),
      np.concatenate([[0]] + [part.splits[1:] + offset for part, offset
                              in zip(parts, offsets[:-1], strict=True)]))


def full_rows(texts: store.Texts, width: int) -> store.Texts:
  """Returns the texts of each language as one, `</s>` between, cut into rows.

  All rows are full but each language's last: no padding, and every token of a
  long text is read.

  Args:
    texts: in the records' order, which is no order of content.
    width: ids in a row.
  """
  ends = texts.ids.splits[1:]
  values = np.insert(texts.ids.values, ends, tokenizer.EOS)
  lengths = np.diff(texts.ids.splits) + 1
  names, language_C = np.unique(texts.languages, return_inverse=True)
  language_of_id = np.repeat(language_C, lengths)
  languages, parts = [], []
  for number, name in enumerate(names):
    flat = values[language_of_id == number]
    splits = np.append(np.arange(0, len(flat), width), len(flat))
    languages += [str(name)] * (len(splits) - 1)
    parts.append(store.Ragged(flat, splits))
  return store.Texts(languages, rows(parts))


def pictures(datasets: Sequence[str],
             parts: Sequence[store.Pictures]) -> store.Pictures:
  """Returns the pictures of all parts, regions padded to the longest.

  Raises:
    UserError: region features of different sizes.
  """
  sizes = [part.features_NRF.shape[-1] for part in parts]
  if len(set(sizes)) > 1:
    raise errors.UserError(
        'datasets with region features of different sizes cannot be mixed: '
        + ', '.join(f'{name} has {size}' for name, size
                    in zip(datasets, sizes, strict=True)))
  longest = max(part.mask_NR.shape[1] for part in parts)

  def join(*arrays):
    if isinstance(arrays[0], list):
      return sum(arrays, [])
    return np.concatenate([_pad_regions(array, longest) for array in arrays])

  return store.Pictures(*map(join, *parts))


def captions(parts: Sequence[store.Captions],
             num_pictures: Sequence[int]) -> store.Captions:
  """Returns the captions of all parts; their pictures are numbered through."""
  offsets = np.cumsum([0, *num_pictures])
  words = rows([store.Ragged(part.keys_W, part.word_splits)
                       for part in parts])
  return store.Captions(
      picture_C=np.concatenate([part.picture_C + offset for part, offset
                                in zip(parts, offsets[:-1], strict=True)]),
      languages=sum((part.languages for part in parts), []),
      texts=sum((part.texts for part in parts), []),
      word_splits=words.splits, keys_W=words.values,
      ids=rows([part.ids for part in parts]),
      prefix_ids=rows([part.prefix_ids for part in parts]),
      suffix_ids=rows([part.suffix_ids for part in parts]))


def _pad_regions(array: np.ndarray, longest: int) -> np.ndarray:
  """Returns an array [N, R, …] with zeros up to `longest` regions."""
  if array.ndim < 2 or array.shape[1] == longest:
    return array
  return np.pad(array, [(0, 0), (0, longest - array.shape[1])] +
                [(0, 0)] * (array.ndim - 2))
