"""Regions that others extracted, in the place of the project's own.

`--features=PATH --features_format=NAME`: what is read is in `regions/`.
"""

from collections.abc import Iterable, Sequence
import os
import pathlib
from typing import Any

from absl import logging
from PIL import Image

from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import regions
from input_pipeline.regions import source as source_lib
from input_pipeline.vision import pictures

MISSING, AMBIGUOUS = 'no features', 'ambiguous features'

names = source_lib.names


def check_flags(features: str, features_format: str,
                own: Sequence[str]) -> None:
  """Checks --features and --features_format against each other.

  Args:
    own: what the project extracts itself; these have no format.

  Raises:
    UserError: an unknown name, no such file, or a file without a format.
  """
  if features_format:
    source_lib.parts(features_format, features)
  elif features not in own and pathlib.Path(features).exists():
    raise errors.UserError(
        f'--features={features} needs --features_format; there are: '
        f'{", ".join(names())}')
  else:
    errors.check_choice('--features', features, own)


def fingerprint_of(features_format: str, features: str) -> str:
  """Returns what tells whether the files are those that were read before."""
  return fingerprint.of([
      [part.name, fingerprint.of_path(part)]
      for part in source_lib.parts(features_format, features)])


class ExtractedRegions:
  """The regions of a dataset's images, out of a file.

  Attributes:
    feature_dim: F.
    manifest: what all files that one model reads must have in common.
  """

  def __init__(self, options: Any):
    """Opens the file of `builder.Options`.

    With `strict`, features without captions, or twice, are errors.

    Raises:
      UserError: no such format or file, or the file is damaged.
    """
    self._source = source_lib.RegionSource(
        options.features_format, options.features)
    self._path = options.features
    self._strict = options.strict
    self._places: dict[str, Any] = {}
    self._unused: list[str] | None = None
    self.manifest = self._source.extractor_manifest(options.detector)
    self.feature_dim = self.manifest['feature_dim']

  def match(self, image_ids: Iterable[str]) -> None:
    """Finds the regions of a dataset's images, before the first `load`.

    Raises:
      UserError: no image has any; or `strict`, and features have no captions.
    """
    image_ids = list(image_ids)
    self._places = self._source.index.match(image_ids)
    self._unused = self._source.unused(self._places.values())
    if image_ids and not self._places:
      raise errors.UserError(
          f'--features={self._path} has none of the images of the dataset: '
          f'there {self._unused[:1]}, here {image_ids[:1]}'
          + self._ambiguous())
    self._log(list(dict.fromkeys(image_ids)))
    for what, found in (('without captions', self._unused),
                        ('twice', list(self._source.index.repeated))):
      if self._strict and found:
        raise errors.UserError(
            f'{self._path}: features {what} (--strict): {len(found)}, the '
            f'first {found[0]!r}')

  def _log(self, image_ids: Sequence[str]) -> None:
    """Logs how many images found regions, and what is left."""
    left = [image for image in image_ids if image not in self._places]
    logging.log(
        logging.WARNING if left or self._unused else logging.INFO,
        '--features=%s: regions of %d of %d images (%s)%s; left over: %s, %s',
        self._path, len(self._places), len(image_ids), ', '.join(
            f'{count} by {rule}'
            for rule, count in self._source.index.matched.items()),
        self._ambiguous(), _count('images', left),
        _count('rows', self._unused or ()))

  def _ambiguous(self) -> str:
    found = sorted(self._source.index.ambiguous)
    return f'; {_count("images", found)} ambiguous' if found else ''

  def load(self, image_id: str,
           picture: pathlib.Path | None) -> regions.RegionSet:
    """Returns the regions of an image.

    Args:
      image_id: one that `match` knows.
      picture: its file, for the size where the format has none; it need not
        exist.

    Raises:
      RowError: there are none, or they cannot be used.
    """
    place = self._places.get(image_id)
    if not place:
      raise errors.RowError(
          AMBIGUOUS if image_id in self._source.index.ambiguous else MISSING,
          image_id)
    try:
      found = self._source.load(place)
    except errors.RowError as error:
      raise errors.RowError(
          error.reason, f'{self._source.where(place)}: {error.detail}'
      ) from error
    if (found.height, found.width) == regions.UNKNOWN_SIZE and (
        picture and os.path.isfile(picture)):
      height, width = _size(picture)
      return found._replace(
          boxes_R4=found.boxes_R4 * [width, height, width, height],
          height=height, width=width)
    return found

  def extract(self, found: list[regions.RegionSet]) -> list[regions.RegionSet]:
    """Returns its argument: `load` has extracted already."""
    return found

  def report(self) -> dict[str, Any]:
    """Returns where the regions came from, and what was left over."""
    report = self._source.manifest() | {
        'twice': len(self._source.index.repeated),
        'ambiguous': len(self._source.index.ambiguous)}
    if self._unused is not None:
      report['without_captions'] = len(self._unused)
    return report


def _count(what: str, found: Sequence[str]) -> str:
  return f'{len(found)} {what}' + (f' ({found[0]!r} …)' if found else '')


def _size(picture: pathlib.Path) -> tuple[int, int]:
  """Returns (height, width) of a picture file, or raises RowError."""
  try:
    with Image.open(picture, formats=pictures.of_pillow()) as image:
      return image.height, image.width
  # Pillow raises much more than OSError at damage.
  except Exception as error:
    raise errors.RowError('picture unreadable', f'{picture}') from error
