"""What datasets share whose texts have classes, in files of `--raw_dir`."""

from collections.abc import Iterable
import re
from typing import NamedTuple

from input_pipeline import errors
from input_pipeline.datasets import _readers

# Few shots of IGLUE are splits of their own: `train_5`, of MaRVL `train5`.
# Longer ones (`train10x2`) are other draws of as many.
_SPLIT = re.compile(r'(?:train|dev|val|valid|test)|train_?(?P<shots>\d+)')


class Row(NamedTuple):
  """One text.

  Attributes:
    split: as `split_of` returns it.
    images: file names of its one picture or two, as published.
    language: public code.
    text: it.
    label: number of its class; -1 = none that is known.
  """
  split: str
  images: tuple[str, ...]
  language: str
  text: str
  label: int


def split_of(theirs: str) -> str:
  """Returns the split of a published name, '' for one that is not read.

  >>> split_of('dev'), split_of('train5'), split_of('train10x2')
  ('validation', 'train_5', '')
  """
  match = _SPLIT.fullmatch(theirs)
  if not match:
    return ''
  return (f'train_{match["shots"]}' if match['shots']
          else _readers.SPLITS[theirs])


def text_of(value: object, where: object) -> str:
  """Returns a text; raises UserError if it is none."""
  if not isinstance(value, str):
    raise errors.UserError(f'{where}: the text is {value!r:.80}; allowed: a '
                           'string')
  return value


class Builder(_readers.Builder):
  """Builder of texts with classes: an item is a picture, or a pair of them."""

  def gather_rows(self, rows: Iterable[Row]) -> list[_readers.Item]:
    """Returns the pictures, each with its texts of one split together.

    Raises:
      UserError: there is none.
    """
    found: dict[tuple[str, tuple[str, ...]], list] = {}
    for row in rows:
      found.setdefault((row.split, row.images), []).append(
          (row.language, row.text, row.label))
    if not found:
      raise errors.UserError(
          f'{self.folder} has no texts of {self.name}: see docs/formats.md')
    items = []
    for (split, images), texts in found.items():
      first, *_ = parts = [self.item(image, split, []) for image in images]
      # A picture may be in several splits, and in several pairs.
      name = f'{split}/{"+".join(images)}'
      items.append(first._replace(
          image_id=name, group=name, captions=texts,
          pictures=tuple((part.image_id, part.path) for part in parts)))
    return items
