"""Finds an image of a dataset among the names that a features file has.

The same picture is `COCO_val2014_000000000042.jpg` in the annotations, and
`COCO_val2014_000000000042`, `coco_val2014_000000000042` or `42` in files of
features.
"""

from collections import Counter
from collections.abc import Callable, Iterable
import pathlib
import re
from typing import Any

from input_pipeline.region_files import contract

_DIGITS = re.compile(r'(\d+)\D*$')
# The endings that belong to pictures, and that MILVLG and UC2 leave in names.
_ENDING = re.compile(r'\.(?:jpe?g|png|webp|gif|bmp|tiff?|svg)$', re.IGNORECASE)


def _stem(name: str) -> str:
  """Returns the name without the ending of a picture file."""
  return _ENDING.sub('', name)


def _base(name: str) -> str:
  """Returns the stem in lower case, without folders."""
  return pathlib.PurePosixPath(_stem(name)).name.casefold()


def _cut(name: str) -> str:
  """Returns the name as mmf cuts it: at the first dot."""
  return _base(name).split('.')[0]


def _number(name: str) -> str:
  """Returns the last number in the name, '' where there is none."""
  found = _DIGITS.search(_base(name))
  return found[1].lstrip('0') or '0' if found else ''


# What is compared: of an image in the annotations, of a name in the file. The
# closest comes first; each but the first can hold for several images.
_Shorten = Callable[[str], str]
_NUMBER = 'number'
_RULES: dict[str, tuple[_Shorten, _Shorten]] = {
    'name': (str, str), 'name without ending': (_stem, _stem),
    'name without folder and case': (_base, _base),
    'name up to the first dot': (_cut, _base), _NUMBER: (_number, _number)}


class Index:
  """The images of a features file, by name.

  Attributes:
    places: name → place.
    duplicates: names that came again; the first place counts.
    matched: rule → how many images it found.
  """

  def __init__(self, entries: Iterable[contract.Entry]):
    self.places: dict[str, Any] = {}
    self.duplicates: list[str] = []
    self.matched: Counter[str] = Counter()
    for name, place in entries:
      if name in self.places:
        self.duplicates.append(name)
      else:
        self.places[name] = place

  def match(self, image_ids: Iterable[str]) -> dict[str, Any]:
    """Returns {image id: place} of the images that are found.

    Rules are tried one after the other, from equal names to equal numbers, on
    what is left: images that have no place, and places that have no image. A
    rule that gives two images the same place, or two places to an image, gives
    neither: names with dots, which mmf cuts, would get each other's features.
    """
    found: dict[str, Any] = {}
    images, names = list(dict.fromkeys(image_ids)), list(self.places)
    for rule, (of_image, of_name) in _RULES.items():
      if not images or not names:
        break
      by_key = _unique(names, of_name)
      pairs = {image: by_key[key]
               for key, image in _unique(images, of_image).items()
               if key and image is not None and by_key.get(key) is not None}
      if rule == _NUMBER:  # cat_7 and dog_7 are not the same picture.
        pairs = {image: name for image, name in pairs.items()
                 if _base(image).isdigit() or _base(name).isdigit()}
      found |= {image: self.places[name] for image, name in pairs.items()}
      if pairs:
        self.matched[rule] += len(pairs)
      taken = set(pairs.values())
      images = [image for image in images if image not in pairs]
      names = [name for name in names if name not in taken]
    return found


def _unique(names: Iterable[str], shorten: _Shorten,
            ) -> dict[str, str | None]:
  """Returns {key: name}, None where several names share the key."""
  found: dict[str, str | None] = {}
  for name in names:
    key = shorten(name)
    found[key] = None if key in found else name
  return found
