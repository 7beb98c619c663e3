"""What datasets of captions share: a user's folder, and its files' lines.

Pictures are optional where regions come from a file; they are looked for in
`images/` below `--raw_dir`, and in the folder itself.
"""

from collections.abc import Iterable, Iterator, Sequence
import gzip
import json
import pathlib
from typing import Any

from absl import logging

from input_pipeline import errors
from input_pipeline import languages
from input_pipeline.building import builder

# What published splits are called here.
SPLITS = {'train': 'train', 'restval': 'train', 'val': 'validation',
          'valid': 'validation', 'dev': 'validation',
          'validation': 'validation', 'test': 'test'}


class Builder(builder.ImageTextBuilder):
  """Builder of captions that lie in files of `--raw_dir`."""

  @property
  def folder(self) -> pathlib.Path:
    """`--raw_dir`.

    Raises:
      UserError: it is missing.
    """
    folder = pathlib.Path(self.options.raw_dir or '.')
    if not self.options.raw_dir or not folder.is_dir():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; {self.name} needs the '
          'folder of its files (see docs/formats.md)')
    return folder

  def language(self, theirs: str, where: Any) -> str:
    """Returns the public code of a data set's code; '' = not wanted.

    Args:
      theirs: the code in the files.
      where: the file, for the message.

    Raises:
      UserError: an unknown language, with `strict`; else it is left out.
    """
    code = languages.resolve(theirs)
    if not code:
      if self.options.strict:
        raise errors.UserError(
            f'{where}: unknown language {theirs!r} (--strict)')
      logging.warning('%s: language %r is unknown and left out', where, theirs)
    wanted = self.options.languages
    return code if not wanted or code in wanted else ''

  def item(self, name: str, split: str, captions: Iterable[tuple[str, str]], *,
           image_id: str = '') -> builder.ImageItem:
    """Returns the item of an image.

    Args:
      name: of its picture file.
      split: one of `builder.SPLITS`.
      captions: (language, text).
      image_id: the name by default.
    """
    path = self.folder / 'images' / name
    if not path.is_file():
      path = self.folder / name
    image_id = image_id or name
    return builder.ImageItem(
        image_id=image_id, path=path, split=split, group=image_id,
        captions=list(captions))


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """Returns the first of the files that is there, packed or not.

  Args:
    folder: where to look.
    names: file names below it, without `.gz`.

  Raises:
    UserError: none is there.
  """
  found = find_or_none(folder, *names)
  if found is None:
    raise errors.UserError(
        f'{folder} has no {" or ".join(names)} (or .gz of it)')
  return found


def find_or_none(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
  """Returns the first of the files that is there, or None; see `find`."""
  for name in names:
    for path in (folder / name, folder / f'{name}.gz'):
      if path.is_file():
        return path
  return None


def below(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """Returns the first of the folders that is there, else `folder` itself."""
  for name in names:
    if (folder / name).is_dir():
      return folder / name
  return folder


def lines(path: pathlib.Path) -> Iterator[str]:
  """Yields a text file's lines; `.gz` is unpacked.

  Raises:
    UserError: a line is not UTF-8, or the file is damaged.
  """
  opened = gzip.open if path.suffix == '.gz' else open
  number = 0
  try:
    with opened(path, 'rb') as file:
      for number, line in enumerate(file, start=1):
        text = line.decode('utf-8-sig' if number == 1 else 'utf-8')
        yield text.rstrip('\r\n')
  except UnicodeDecodeError as error:
    raise errors.UserError(f'{path}:{number}: not UTF-8: {error}') from error
  except (OSError, EOFError) as error:
    raise errors.UserError(f'{path}: damaged: {error}') from error


def rows(path: pathlib.Path, keys: Sequence[str],
         ) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (file:line, object) of a file of JSON lines.

  Args:
    path: of the file.
    keys: that every object must have.

  Raises:
    UserError: a line is no such object.
  """
  for number, line in enumerate(lines(path), start=1):
    if line.strip():
      where = f'{path}:{number}'
      yield where, check_keys(parse(line, where), keys, where)


def parse(text: str, where: Any) -> Any:
  """Returns a JSON value.

  Raises:
    UserError: it is none.
  """
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f'{where}: not JSON: {error}') from error


def check_keys(row: Any, keys: Sequence[str], where: Any) -> dict[str, Any]:
  """Returns `row`, which must be an object with these keys.

  Raises:
    UserError: it is not.
  """
  if not isinstance(row, dict) or not set(keys) <= set(row):
    found = ', '.join(row) if isinstance(row, dict) else type(row).__name__
    raise errors.UserError(
        f'{where}: found {found or "nothing"}; allowed: an object with '
        f'{", ".join(keys)}')
  return row


def texts(value: Any, where: Any) -> list[str]:
  """Returns captions: a string, or a list of strings.

  Raises:
    UserError: anything else.
  """
  found = [value] if isinstance(value, str) else value
  if not isinstance(found, list) or not all(isinstance(t, str) for t in found):
    raise errors.UserError(f'{where}: captions are {value!r:.80}; allowed: '
                           'strings')
  return found


def aligned(names: Sequence[str], path: pathlib.Path) -> list[str]:
  """Returns the lines of a file that has one for each name.

  Raises:
    UserError: it has more or fewer.
  """
  found = list(lines(path))
  if len(found) != len(names):
    raise errors.UserError(
        f'{path} has {len(found)} lines; allowed: {len(names)}, as images')
  return found
