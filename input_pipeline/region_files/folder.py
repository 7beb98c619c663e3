"""Formats of a file an image, in one folder."""

from collections.abc import Iterator
import os
import pathlib
from typing import Any

from input_pipeline import errors
from input_pipeline.region_files import classes
from input_pipeline.region_files import contract


class Reader(contract.Reader):
  """A folder of files, named after their images.

  Attributes:
    ending: of the files; overridden.
  """
  ending = ''

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self.convention = classes.Convention(self.found)
    if not path.is_dir() or next(self.entries(), None) is None:
      raise errors.UserError(
          f'{path} is no folder with files *{self.ending}')

  def entries(self) -> Iterator[contract.Entry]:
    for path in sorted(self.path.rglob(f'*{self.ending}')):
      # Below the folder, as images of several folders may share a name.
      name = path.relative_to(self.path).as_posix()
      # What is hidden is no data: macOS writes ._a.npy beside a.npy.
      if self.is_image(path) and not f'/{name}'.count('/.'):
        yield contract.Entry(name.removesuffix(self.ending), name)

  def is_image(self, path: pathlib.Path) -> bool:
    """Returns whether a file stands for an image."""
    return os.path.isfile(path) and not any(
        part.startswith('.') for part in path.relative_to(self.path).parts)

  def read(self, place: str) -> bytes:
    """Returns the content of a file.

    Raises:
      RowError: it is missing, or larger than any image's regions.
    """
    path = self.path / place
    if not os.path.isfile(path):
      raise contract.RowError('missing', place)
    size = path.stat().st_size
    if size > contract.MAX_BYTES:
      raise contract.RowError('too large', f'{size:,} bytes')
    return path.read_bytes()

  @staticmethod
  def where(place: Any) -> str:
    return f'file {place}'
