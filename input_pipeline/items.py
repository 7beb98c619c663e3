"""What a dataset lists before it is read, and what it is asked for."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

SPLITS = ('train', 'validation', 'test')


class ImageItem(NamedTuple):
  """A picture before it is read.

  Attributes:
    image_id: unique in the dataset.
    path: the picture file.
    split: one of `SPLITS`.
    group: pictures of a group share their right answers.
    captions: (language, text) of each caption.
    span: where in the file it lies: its first byte, and how many; None = it
      is the file.
  """
  image_id: str
  path: pathlib.Path
  split: str
  group: str
  captions: list[tuple[str, str]]
  span: tuple[int, int] | None = None

  @property
  def where(self) -> str:
    """What messages call it."""
    return f'{self.path}, {self.image_id}' if self.span else str(self.path)


class TextItem(NamedTuple):
  """A sentence before it is tokenised."""
  text_id: str
  split: str
  language: str
  text: str


# What of a dataset's key says which records there are, not what they hold.
_WHICH = ('files', 'items', 'languages', 'limit', 'raw_dir')


def recipe(key: Any) -> dict[str, Any]:
  """Returns what of a dataset's key decides how a picture becomes a record."""
  return {name: value for name, value in key.items() if name not in _WHICH
          } if isinstance(key, Mapping) else {}


@dataclasses.dataclass
class Options:
  """How a dataset is prepared.

  Attributes:
    raw_dir: folder of the user's own files; '' for fetched datasets.
    source: which of the sets in `raw_dir`, where the dataset reads any.
    fields: 'ours=theirs' of what a set calls its pictures and captions; see
      `datasets/tfds.py`.
    languages: public codes wanted; none = the dataset's default.
    limit: items at most, spread over the dataset; 0 = all.
    strict: an unusable item is an error, not a counted skip.
    features: how pictures become regions, one of `EXTRACTORS`; or a file
      of regions.
    features_format: how to read that, see `extracted.py`.
    detector: a name for what extracted them; '' = their format.
    storage: how features are stored, see `records.STORAGE`.
    copies: folder that keeps what is shown of the pictures, see `copies.py`.
    shards: folder of finished shards, kept until all are there.
    before: folder of the dataset as it was, where its records can be used
      again.
  """
  raw_dir: str = ''
  source: str = ''
  fields: Sequence[str] = ()
  languages: Sequence[str] = ()
  limit: int = 0
  strict: bool = False
  features: str = 'grid'
  features_format: str = ''
  detector: str = ''
  storage: str = 'float16'
  copies: pathlib.Path | None = None
  shards: pathlib.Path | None = None
  before: pathlib.Path | None = None
