"""What datasets share whose captions lie in files of `--raw_dir`.

Pictures are optional where regions come from a file; they are looked for in
`images/` below `--raw_dir`, and in the folder itself.
"""

import collections
from collections.abc import Collection, Iterable, Iterator, Sequence
import itertools
import pathlib
import re
from typing import Any
import zlib

from absl import logging

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import languages

# What published splits are called here.
SPLITS = {'train': 'train', 'restval': 'train', 'val': 'validation',
          'valid': 'validation', 'dev': 'validation',
          'validation': 'validation', 'test': 'test'}
_COCO = re.compile(r'COCO_(?P<folder>train2014|val2014|test2014)_\d+\.jpg')
Item = builder.ImageItem
# (image, split, language, texts).
Captions = tuple[str, str, str, Sequence[str]]


class Builder(builder.ImageTextBuilder):
  """Builder of captions that lie in files of `--raw_dir`."""

  @property
  def folder(self) -> pathlib.Path:
    """`--raw_dir`; raises UserError where it is missing."""
    folder = pathlib.Path(self.options.raw_dir or '.')
    if not self.options.raw_dir or not folder.is_dir():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; {self.name} needs the '
          'folder of its files (see docs/formats.md)')
    return folder

  def language(self, theirs: str, where: Any) -> str:
    """Returns the public code of a data set's code; '' = not wanted.

    An unknown language is left out; with `strict` it raises UserError.
    """
    code = languages.resolve(theirs)
    if not code:
      if self.options.strict:
        raise errors.UserError(
            f'{where}: unknown language {theirs!r} (--strict)')
      logging.warning('%s: language %r is unknown and left out', where, theirs)
    wanted = self.options.languages
    return code if not wanted or code in wanted else ''

  def by_language(self, paths: Iterable[tuple[str, pathlib.Path]],
                  ) -> dict[str, pathlib.Path]:
    """Returns the file of each wanted language; two of one are an error.

    Args:
      paths: (the data set's code, file).
    """
    found: dict[str, pathlib.Path] = {}
    for theirs, path in paths:
      code = self.language(theirs, path)
      if code in found:
        raise errors.UserError(
            f'{found[code]} and {path} both have {code}; allowed: one of them')
      if code:
        found[code] = path
    return found

  def item(self, name: str, split: str, captions: Iterable[tuple[str, str]], *,
           image_id: str = '') -> Item:
    """Returns the item of an image.

    Args:
      name: of its picture file, which is its id as well by default.
      captions: (language, text).
    """
    folders = [self.folder / 'images', self.folder]
    if match := _COCO.fullmatch(name):  # As COCO's archives unpack.
      folders = [folder / match['folder'] for folder in folders] + folders
    image_id = image_id or name
    return Item(
        image_id=image_id, path=self.files.find(name, *folders), split=split,
        group=image_id, captions=list(captions))

  def gather(self, captions: Iterable[Captions]) -> list[Item]:
    """Returns the images, each with its captions of all files together.

    The split that is met first is the image's.
    """
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for name, split, language, texts in captions:
      found.setdefault(name, (split, []))[1].extend(
          (language, text) for text in texts)
    return [self.item(name, split, texts)
            for name, (split, texts) in found.items()]


def split_by_hash(group: str, *, validation: int = 5, test: int = 5) -> str:
  """Returns the split of a group: the same on every machine, for ever.

  Args:
    validation: per cent of the groups.
    test: per cent of the groups.
  """
  place = zlib.crc32(group.encode()) % 100
  if place < test:
    return 'test'
  return 'validation' if place < test + validation else 'train'


def spread(parts: Sequence[Iterator[Any]], limit: int) -> Iterator[Any]:
  """Yields what the parts yield, one after the other; under a limit in turn.

  So a few of many items are of every language and split.
  """
  if not limit:
    yield from itertools.chain.from_iterable(parts)
    return
  waiting = collections.deque(parts)
  while waiting:
    for item in itertools.islice(waiting[0], 1):
      yield item
      waiting.append(waiting[0])
    waiting.popleft()


def warn_of_missing(names: Iterable[Any], there: Collection[Any], what: str,
                    ) -> None:
  """Says how many of the names of images are not there."""
  missing = [name for name in names if name not in there]
  if missing:
    logging.warning('%s: %d images, the first %r', what, len(missing),
                    missing[0])
