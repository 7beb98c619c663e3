"""Protocols by name: what is asked, of what, and what is right.

docs/protocols.md tells each one's source and traps. One of retrieval turns a
language's captions into trials, galleries with their queries, whose metrics are
averaged. Letters: I pictures and C captions of a trial, Q pictures that are
queries, M captions as written.
"""

from collections.abc import Collection, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set

DIRECTIONS = ('text_to_image', 'image_to_text')


class Trial(NamedTuple):
  """One language's queries and right answers."""
  is_right_CI: np.ndarray
  image_queries_Q: np.ndarray
  # The set's caption of each row (one may come twice) and picture of each
  # column; None = row and caption are the same.
  caption_C: np.ndarray | None = None
  picture_I: np.ndarray | None = None

  def cut(self, scores: np.ndarray) -> np.ndarray:
    """Returns this trial's part [C, I] of the set's matrix."""
    return scores[np.ix_(self.captions, self.pictures)]

  @property
  def captions(self) -> np.ndarray:
    """The set's caption of each row."""
    return (np.arange(self.is_right_CI.shape[0]) if self.caption_C is None
            else self.caption_C)

  @property
  def pictures(self) -> np.ndarray:
    """The set's picture of each column."""
    return (np.arange(self.is_right_CI.shape[1]) if self.picture_I is None
            else self.picture_I)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a set is asked."""
  # File of this folder whose `evaluate` asks; what follows is of retrieval.
  kind: str = dataclasses.field(default='retrieval', kw_only=True)
  # Exactly so many, the first ones; 0 = all there are.
  captions_per_picture: int = 0
  # Of the published set; 0 or none = any.
  num_pictures: int = 0
  languages: tuple[str, ...] = ()
  # Galleries that the pictures are cut into, in their order.
  num_folds: int = 1
  # Equal captions are one candidate and one query, and whole groups are right;
  # otherwise every caption as written stands for itself.
  is_distinct: bool = False
  # Pictures with the same caption are right for each other's.
  shares_texts: bool = False
  # A language searches the pictures it has captions for.
  own_gallery: bool = False
  # Pictures with fewer captions get theirs again.
  pads: bool = False

  def deviations(self, num_images: int, left_out: int) -> list[str]:
    """Returns how the set differs from the published one, in words."""
    found = []
    if num_images < self.num_pictures:
      found.append(f'{num_images} pictures instead of {self.num_pictures}')
    # Others move up into the place of a picture that was left out.
    if left_out and self.num_pictures:
      found.append(f'preparation left {left_out} of its pictures out')
    return found


_FLICKR_COCO = ('de', 'en', 'es', 'id', 'ja', 'ru', 'tr', 'zh_CN')
PROTOCOLS = {
    'tux-paint': Protocol(is_distinct=True),
    'multi30k-task1': Protocol(1, 1_000, languages=('en', 'de', 'fr', 'cs')),
    'multi30k-task2x5': Protocol(5, 1_000, languages=('en', 'de')),
    'coco-1k': Protocol(5, 1_000),
    'coco-5x1k': Protocol(5, 5_000, num_folds=5),
    'coco-5k': Protocol(5, 5_000),
    'coco-cn-1k': Protocol(0, 1_000, languages=('zh_CN',)),
    'xflickrco': Protocol(1, 2_000, languages=_FLICKR_COCO),
    'wit': Protocol(shares_texts=True, own_gallery=True),
    'xtd10': Protocol(1, 1_000),
    'xm3600': Protocol(0, 3_600),
    'm3p-pad5': Protocol(5, 1_000, pads=True),
    'xvnli': Protocol(
        kind='accuracy', languages=('ar', 'en', 'es', 'fr', 'ru')),
    'xgqa': Protocol(kind='accuracy', languages=(
        'bn', 'de', 'en', 'id', 'ko', 'pt', 'ru', 'zh_CN')),
    'marvl': Protocol(
        kind='accuracy', languages=('id', 'sw', 'ta', 'tr', 'zh_CN')),
    'nlvr2': Protocol(kind='accuracy', languages=('en',)),
    'labels': Protocol(kind='accuracy'),
}


def get(name: str) -> Protocol:
  """Returns the protocol called `name`; UserError where there is none."""
  if name not in PROTOCOLS:
    raise errors.UserError(
        f'config.evaluation.protocol is {name!r}; allowed: '
        f'{", ".join(PROTOCOLS)}')
  return PROTOCOLS[name]


def trials(name: str, language: str, num_images: int,
           captions: evaluation_set.CaptionSet) -> list[Trial]:
  """Returns the trials of one language; the set's first pictures are used.

  Raises:
    UserError: an unknown protocol, a language that it does not have, or
      pictures with too few captions.
  """
  protocol = get(name)
  if protocol.languages:
    errors.check_choice(
        f'language of protocol {name}', language, protocol.languages)
  if protocol.is_distinct:
    return [tux_paint(num_images, captions.groups)]
  num_images = min(num_images, protocol.num_pictures or num_images)
  if num_images % protocol.num_folds:
    raise errors.UserError(
        f'protocol {name} cuts {protocol.num_pictures} pictures into '
        f'{protocol.num_folds} equal folds, but there are {num_images}')
  written_M2 = captions.written_M2[captions.written_M2[:, 1] < num_images]
  pictures_I = np.arange(num_images)
  if protocol.own_gallery:
    pictures_I = np.unique(written_M2[:, 1])
  if protocol.captions_per_picture:
    written_M2 = _take(name, language, written_M2, pictures_I)
  return [_trial(protocol, written_M2, part_I)
          for part_I in np.split(pictures_I, protocol.num_folds)]


def _take(name: str, language: str, written_M2: np.ndarray,
          pictures_I: np.ndarray) -> np.ndarray:
  protocol, rows = get(name), []
  wanted = protocol.captions_per_picture
  for picture in pictures_I:
    own = written_M2[written_M2[:, 1] == picture]
    too_few = len(own) < (1 if protocol.pads else wanted)
    # Of five captions or more five are taken; of one or more, none is "the".
    if too_few or (wanted == 1 and len(own) > 1):
      raise errors.UserError(
          f'protocol {name} needs {wanted} caption{"s"[:wanted > 1]} of every '
          f'picture, but picture {picture} has {len(own)} in {language}')
    # Padded in turn: a, b → a, b, a, b, a.
    rows.append(own[np.arange(wanted) % len(own)])
  return np.concatenate(rows)


def _trial(protocol: Protocol, written_M2: np.ndarray,
           pictures_I: np.ndarray) -> Trial:
  caption_C, picture_C = written_M2[np.isin(written_M2[:, 1], pictures_I)].T
  if not len(caption_C):
    raise errors.UserError('there are no captions to ask for')
  is_right_CI = picture_C[:, np.newaxis] == pictures_I
  if protocol.shares_texts:
    pairs = np.zeros((caption_C.max() + 1, len(pictures_I)), bool)
    np.logical_or.at(pairs, caption_C, is_right_CI)
    is_right_CI = pairs[caption_C]
  return Trial(is_right_CI, np.flatnonzero(is_right_CI.any(0)), caption_C,
               pictures_I)


def tux_paint(num_images: int, groups: Sequence[Collection[int]]) -> Trial:
  """Returns the trial of protocol `tux-paint`.

  Text → image: the distinct captions of a language against all pictures of
  the split. Image → text: the pictures that have a caption in it, against
  those captions. Every member of a caption's group is a right answer.

  Raises:
    ValueError: a caption has no picture, or there are no captions.
  """
  if not groups:
    raise ValueError('there are no captions to ask for')
  is_right_CI = np.zeros((len(groups), num_images), bool)
  for caption, pictures in enumerate(groups):
    is_right_CI[caption, list(pictures)] = True
  if not is_right_CI.any(1).all():
    raise ValueError(
        f'caption {int(np.argmin(is_right_CI.any(1)))} has no picture')
  return Trial(is_right_CI, np.flatnonzero(is_right_CI.any(0)))
