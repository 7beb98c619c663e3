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
    split: one of `SPLITS`, or one of 'train_1', 'train_5' … for few shots.
    group: pictures of a group share their right answers.
    captions: (language, text) of each caption, and the number of its class
      where the dataset has `labels`; -1 = none that is known.
    span: where in the file it lies: its first byte, and how many; None = it
      is the file.
    pictures: (name, path) of its one picture or two, where `image_id` is no
      picture's name; () = it is that of the one at `path`.
  """
  image_id: str
  path: pathlib.Path
  split: str
  group: str
  captions: list[Any]
  span: tuple[int, int] | None = None
  pictures: tuple[tuple[str, pathlib.Path], ...] = ()

  @property
  def where(self) -> str:
    """What messages call it."""
    return f'{self.path}, {self.image_id}' if self.span else str(self.path)

  def row(self, path: str) -> list[Any]:
    """Returns what a digest is made of, with `path` in the path's place.

    Without `pictures` where there are none: older items had no such field.
    """
    fields: list[Any] = [
        path if name == 'path' else value
        for name, value in self._asdict().items()]
    if self.pictures:
      return fields[:-1] + [name for name, _ in self.pictures]
    return fields[:-1]

  @property
  def parts(self) -> list['ImageItem']:
    """Returns an item for each of its pictures, called as the picture is."""
    return [self._replace(image_id=name, path=path)
            for name, path in self.pictures] or [self]


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
    before: folders whose records can be used again: of the dataset as it was,
      and of others of the same files.
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
  before: Sequence[pathlib.Path] = ()
