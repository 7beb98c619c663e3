"""Finds the images of a dataset among the names that a features file has.

The same picture is `val2014/COCO_val2014_000000000042.jpg` in the annotations,
and `COCO_val2014_000000000042`, `coco_val2014_000000000042` or `42` in files of
features. Which it is, is decided once, for the whole of both lists.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import re
from typing import Any, NamedTuple

from input_pipeline import file_names
from input_pipeline import regions

# The endings that belong to pictures, and that MILVLG and UC2 leave in names.
_ENDING = re.compile(
    r'\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|svg|ppm|hei[cf]|avif)$',
    re.IGNORECASE)
# Numbers as COCO and UNITER write them in full.
_FULL = re.compile(
    r'(?:coco_(?:train|val|test)\d{4}_|flickr30k_)(\d+)', re.ASCII)

_Shorten = Callable[[str], str]


class _Rule(NamedTuple):
  """What is compared: of an image in the annotations, of a name in the file.

  Attributes:
    has_folders: whether they count; else one side may lack some.
    is_short: whether names may have lost folders, or what follows a dot.
  """
  name: str
  of_image: _Shorten
  of_name: _Shorten
  has_folders: bool = False
  is_short: bool = True


def _spelling(name: str) -> str:
  """Returns the name's normal form, its ending in lower case."""
  return _ENDING.sub(
      lambda match: match[0].lower(), file_names.normal(name))


def _stem(name: str) -> str:
  """Returns the name without the ending of a picture file and without case."""
  return _ENDING.sub('', file_names.normal(name)).casefold()


def _cut(name: str) -> str:
  """Returns the stem as mmf cuts it: at the first dot."""
  folder, slash, base = _stem(name).rpartition('/')
  return folder + slash + base.split('.')[0]


def _number(name: str) -> str:
  """Returns a number for COCO's and UNITER's full names, else the stem."""
  stem = _stem(name)
  folder, slash, base = stem.rpartition('/')
  if match := _FULL.fullmatch(base):
    folder, slash, base = '', '', match[1]
  return folder + slash + (
      base.lstrip('0') or '0' if _is_number(base) else base)


def _is_number(name: str) -> bool:
  return name.isascii() and name.isdigit()


def _rules(images: Sequence[str], names: Sequence[str]) -> list[_Rule]:
  """Returns the rules for two lists, the closest first."""
  what, of_image, of_name = 'name without ending and case', _stem, _stem
  are_numbers = all(map(_is_number, map(_stem, images)))
  if are_numbers or all(map(_is_number, map(_stem, names))):
    # One list has numbers and nothing else: so they are all that can be meant.
    what, of_image, of_name = 'number', _number, _number
    if all(map(_is_number, images)):
      # Not files but rows of a table, which the file may count behind a word.
      prefix = _prefix(list(map(_stem, names)))
      def of_name(name):
        return _number(_stem(name).removeprefix(prefix))
  return [
      _Rule('spelling', _spelling, _spelling, has_folders=True, is_short=False),
      _Rule(what, of_image, of_name, has_folders=True),
      _Rule('name without folder', of_image, of_name),
      _Rule('name up to the first dot', _cut, _stem)]


def _prefix(stems: Sequence[str]) -> str:
  """Returns what stands before the number in all names, '' if they differ."""
  prefix = stems[0].rstrip('0123456789') if stems else ''
  is_shared = all(
      stem.startswith(prefix) and _is_number(stem.removeprefix(prefix))
      for stem in stems)
  return prefix if is_shared else ''


class Index:
  """The images of a features file, by name.

  Attributes:
    places: name → place.
    repeated: name → its further places, where it came again.
    matched: rule → how many images it found, in the last `match`.
    ambiguous: images that met a name in it, but not alone or not only that.
  """

  def __init__(self, entries: Iterable[regions.Entry]):
    self.places: dict[str, Any] = {}
    self.repeated: dict[str, list[Any]] = {}
    self.matched: Counter[str] = Counter()
    self.ambiguous: set[str] = set()
    for name, place in entries:
      if name in self.places:
        self.repeated.setdefault(name, []).append(place)
      else:
        self.places[name] = place

  def match(self, image_ids: Iterable[str]) -> dict[str, Any]:
    """Returns {image id: place} of a dataset's images that have regions."""
    # Equal names are the same image. The closest rule by which any image meets
    # a name is how the file was written, and the only one that is used: what it
    # leaves over on both sides does not belong together. Where it cannot tell
    # two images apart, or two names, none of them is found.
    images = list(dict.fromkeys(image_ids))
    names = [name for name in self.places if name]
    found = {image: image for image in images if image in self.places}
    self.matched = Counter({'name': len(found)} if found else {})
    self.ambiguous = set()
    for rule in _rules(images, names) if len(found) < len(images) else ():
      pairs, ambiguous = _pairs(images, names, rule)
      if found or pairs or ambiguous:
        more = pairs.keys() - found.keys()
        if more:
          self.matched[rule.name] = len(more)
        found |= pairs
        self.ambiguous = ambiguous - found.keys()
        break
    return {image: self.places[name] for image, name in found.items()}


def _pairs(images: Sequence[str], names: Sequence[str], rule: _Rule,
           ) -> tuple[dict[str, str], set[str]]:
  """Returns {image: name} by a rule, and images that it cannot tell apart."""
  shorten = _as_short_as_names(names, rule)
  same_short = Counter(map(shorten, images))
  images_by = _by_key(images, rule.of_image, has_folders=rule.has_folders)
  names_by = _by_key(names, rule.of_name, has_folders=rule.has_folders)
  pairs, ambiguous = {}, set()
  for key, same_images in images_by.items():
    same_names = names_by.get(key, [])
    if key and len(same_images) == len(same_names) == 1:
      (image, path), (name, other) = same_images[0], same_names[0]
      # Folders on both sides have to agree, as far as both have them.
      if f'/{path}'.endswith(f'/{other}') or f'/{other}'.endswith(f'/{path}'):
        if same_short[shorten(image)] == 1:
          pairs[image] = name
        else:
          ambiguous.add(image)
    elif same_names:
      ambiguous |= {image for image, _ in same_images}
  return pairs, ambiguous


def _as_short_as_names(names: Sequence[str], rule: _Rule) -> _Shorten:
  """Returns what makes an image's name as short as those in the file may be.

  Where no name has a folder, or none a dot, they may have been taken off: `a`
  is then of `a.jpg`, of `b/a.jpg` or of `a.1.jpg`.
  """
  if not rule.is_short:
    return str
  has_folders, has_dots = (
      any(sign in rule.of_name(name) for name in names) for sign in '/.')

  def shorten(image: str) -> str:
    path = rule.of_image(image if has_dots else _cut(image))
    return path if has_folders else path.rpartition('/')[2]

  return shorten


def _by_key(names: Iterable[str], shorten: _Shorten, *, has_folders: bool,
            ) -> dict[str, list[tuple[str, str]]]:
  """Returns {key: [(name, what it was shortened to)]}."""
  found: dict[str, list[tuple[str, str]]] = {}
  for name in names:
    path = shorten(name)
    key = path if has_folders else path.rpartition('/')[2]
    found.setdefault(key, []).append((name, path))
  return found
