"""Loads a prepared split as the queries and candidates of retrieval.

What reads it is imported where it is loaded: a page, which knows the sets by
name alone, starts without TensorFlow, two seconds earlier.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import batch as batch_lib

# A width that nobody chose is a multiple of this: sets share compiled programs.
_WIDTH = 8
# `<s>`, one id, `</s>`.
_LEAST = 3


@dataclasses.dataclass(frozen=True)
class CaptionSet:
  """The distinct captions of one language; N of them.

  Captions that the tokenizer reads alike are one, see `store.Captions.form`.

  Attributes:
    texts: the captions, as the first of those that are alike was written.
    token_ids_NL: int32 [N, L], `<s> ids </s> <pad>…`.
    text_mask_NL: bool [N, L], False at padding.
    groups: for each caption the numbers of the pictures that are right: those
      it was written for, and all that share a group with one of them.
    written_M2: int [M, 2], (caption, picture it was written for) of all M
      captions in the records' order, equal texts included; None where only
      the distinct captions are known.
    word_lengths_N: for each caption how many ids each of its words has; None
      as above.
    num_cut: captions that are longer than L, and were cut.
  """
  texts: list[str]
  token_ids_NL: np.ndarray
  text_mask_NL: np.ndarray
  groups: list[set[int]]
  written_M2: np.ndarray | None = None
  word_lengths_N: list[list[int]] | None = None
  num_cut: int = 0


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
  """Pictures, and captions in several languages.

  Attributes:
    image_ids: the pictures' names.
    groups: names of the groups of pictures that share right answers.
    regions: all pictures, as NumPy arrays.
    captions: language → its captions.
    left_out: pictures that preparation left out of the split.
  """
  image_ids: list[str]
  groups: list[str]
  regions: batch_lib.Regions
  captions: dict[str, CaptionSet]
  left_out: int = 0


def load(data_dir: str | os.PathLike[str], dataset: str, split: str,
         languages: Sequence[str], max_length: int = 0, *, limit: int = 0,
         text_room: Callable[[int], int] | None = None) -> RetrievalSet:
  """Returns a split as a retrieval set.

  Args:
    data_dir: folder of prepared datasets.
    dataset: name of an image-text dataset.
    split: 'train', 'validation' or 'test'.
    languages: of the captions; ('all',) = all that the split has.
    max_length: L; longer captions are cut. 0 = what the split's longest needs.
    limit: only so many pictures, the first; 0 = all.
    text_room: from a number of regions to the model's positions for captions
      beside them; None = any length.

  Raises:
    UserError: the dataset, the split or a language is not there, or the model
      has no positions for captions beside the regions.
  """
  from input_pipeline import store
  pictures, captions = store.read_image_text(data_dir, dataset, split)
  num = min(limit or len(pictures.image_ids), len(pictures.image_ids))
  by_language: dict[str, dict[tuple[bytes, str], list[int]]] = {}
  for row in np.flatnonzero(captions.picture_C < num).tolist():
    by_language.setdefault(captions.languages[row], {}).setdefault(
        captions.form(row), []).append(row)
  if tuple(languages) == (languages_lib.ALL,):
    languages = sorted(by_language)
  for language in languages:
    errors.check_choice(f'language of {dataset} ({split})', language,
                        sorted(by_language))
  max_length = width(
      int(np.diff(captions.ids.splits[captions.word_splits]).max(initial=1)),
      pictures.mask_NR.shape[1], max_length, text_room)
  members: dict[str, set[int]] = {}
  for picture, group in enumerate(pictures.groups[:num]):
    members.setdefault(group, set()).add(picture)
  return RetrievalSet(
      left_out=store.left_out(data_dir, dataset, split),
      image_ids=pictures.image_ids[:num], groups=pictures.groups[:num],
      regions=batch_lib.Regions(
          pictures.image_id_N[:num], pictures.features_NRF[:num],
          pictures.boxes_NRG[:num], pictures.class_ids_NR[:num],
          pictures.mask_NR[:num]),
      captions={
          language: _caption_set(by_language[language], captions, members,
                                 pictures.groups, max_length)
          for language in languages})


def width(longest: int, num_regions: int, max_length: int,
          text_room: Callable[[int], int] | None) -> int:
  """Returns L, of which every language of the split has the same.

  Args:
    longest: ids of the longest caption.
    num_regions: of the pictures.
    max_length: as of `load`, and so is `text_room`.
  """
  if not max_length:
    max_length = -(-(longest + 2) // _WIDTH) * _WIDTH
  if text_room is None:
    return max_length
  try:
    room = text_room(num_regions)
  except ValueError as error:
    raise errors.UserError(str(error)) from error
  if room < _LEAST:
    raise errors.UserError(
        f'pictures have {num_regions} regions, beside which the model has '
        f'{room} positions for text; allowed: {_LEAST} and more')
  return min(max_length, room)


def _caption_set(rows_of: dict[Any, list[int]], captions: Any,
                 members: dict[str, set[int]], groups: list[str],
                 max_length: int) -> CaptionSet:
  """Returns the captions of one language.

  Args:
    rows_of: distinct caption → its rows in `captions`.
    captions: of all languages, `store.Captions`.
    members: group → its pictures.
    groups: the pictures' groups.
    max_length: L.
  """
  from input_pipeline import store
  first_N = np.array([rows[0] for rows in rows_of.values()], np.int64)
  words = store.gather_words(
      captions, first_N, max_words=tokenizer_lib.MAX_CAPTION_WORDS)
  token_ids_NL, text_mask_NL = store.pad_ids(
      store.unswitched(words), max_length)
  id_counts_W = np.diff(captions.ids.splits)
  written = sorted((row, caption) for caption, rows in enumerate(
      rows_of.values()) for row in rows)
  word_lengths_N = [
      id_counts_W[captions.word_splits[row]:captions.word_splits[row + 1]]
      .tolist() for row in first_N]
  return CaptionSet(
      texts=[captions.texts[rows[0]] for rows in rows_of.values()],
      word_lengths_N=word_lengths_N,
      num_cut=sum(sum(lengths) > max_length - 2 for lengths in word_lengths_N),
      token_ids_NL=token_ids_NL.numpy(),
      text_mask_NL=text_mask_NL.numpy(),
      written_M2=np.array(
          [(caption, captions.picture_C[row]) for row, caption in written]),
      groups=[set().union(*(members[groups[captions.picture_C[row]]]
                            for row in rows)) for rows in rows_of.values()])
