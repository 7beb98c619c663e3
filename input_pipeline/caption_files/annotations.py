"""What datasets of captions share: a user's folder, and its files' lines.

Pictures are optional where regions come from a file; they are looked for in
`images/` below `--raw_dir`, and in the folder itself.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
import gzip
import json
import pathlib
import re
from typing import Any

from absl import logging

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import languages

# What published splits are called here.
SPLITS = {'train': 'train', 'restval': 'train', 'val': 'validation',
          'valid': 'validation', 'dev': 'validation',
          'validation': 'validation', 'test': 'test'}
_COCO = re.compile(r'COCO_(?P<folder>train2014|val2014|test2014)_\d+\.jpg')
_BLOCK_BYTES = 2**20


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

  def by_language(self, paths: Iterable[tuple[str, pathlib.Path]],
                  ) -> dict[str, pathlib.Path]:
    """Returns the file of each wanted language.

    Args:
      paths: (the data set's code, file).

    Raises:
      UserError: a language has two files.
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
           image_id: str = '') -> builder.ImageItem:
    """Returns the item of an image.

    Args:
      name: of its picture file.
      split: one of `builder.SPLITS`.
      captions: (language, text).
      image_id: the name by default.
    """
    folders = [self.folder / 'images', self.folder]
    if match := _COCO.fullmatch(name):  # As COCO's archives unpack.
      folders = [folder / match['folder'] for folder in folders] + folders
    path = self.files.find(name, *folders)
    image_id = image_id or name
    return builder.ImageItem(
        image_id=image_id, path=path, split=split, group=image_id,
        captions=list(captions))


def files(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """Returns the files below a folder that match, sorted, packed or not.

  Each once: of `x` and `x.gz`, `x` is returned. Hidden files and folders
  (`._x`, `.git/`) are no data.

  Args:
    folder: where to look.
    pattern: of the names, without `.gz`.
  """
  found = {
      path for ending in ('', '.gz') for path in folder.rglob(pattern + ending)
      if path.is_file() and not any(
          part.startswith('.') for part in path.relative_to(folder).parts)}
  return sorted(path for path in found if not _is_unpacked(path, found))


def _is_unpacked(path: pathlib.Path, beside: Collection[pathlib.Path]) -> bool:
  """Returns whether a file is packed and stands unpacked beside itself.

  A warning says where they differ.
  """
  unpacked = path.with_suffix('')
  if path.suffix != '.gz' or unpacked not in beside:
    return False
  if not _is_copy(unpacked, path):
    logging.warning('%s and %s differ: the first is read', unpacked, path)
  return True


def _is_copy(unpacked: pathlib.Path, packed: pathlib.Path) -> bool:
  try:
    with open(unpacked, 'rb') as one, gzip.open(packed, 'rb') as other:
      while block := one.read(_BLOCK_BYTES):
        if block != other.read(len(block)):
          return False
      return not other.read(1)
  except (OSError, EOFError):  # Of a damaged file there is no telling.
    return False


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
        f'{folder} has no {" or ".join(names)} (or .gz of it)'
        + file_names.Folders().near(folder / names[0]))
  return found


def find_or_none(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
  """Returns the first of the files that is there, or None; see `find`."""
  files = file_names.Folders()
  for name in names:
    there = [path for path in (
        files.find(path.name, path.parent)
        for path in (folder / name, folder / f'{name}.gz')) if path.is_file()]
    if there:
      return next(path for path in there if not _is_unpacked(path, there))
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


def rows(path: pathlib.Path, keys: Sequence[str], *, once: str = '',
         ) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (file:line, object) of a file of JSON lines.

  Args:
    path: of the file.
    keys: that every object must have.
    once: the key of a picture that has no other line.

  Raises:
    UserError: a line is no such object.
  """
  seen: dict[str, str] = {}
  for number, line in enumerate(lines(path), start=1):
    if line.strip():
      where = f'{path}:{number}'
      row = check_keys(parse(line, where), keys, where)
      if once:
        check_once(str(row[once]), where, seen)
      yield where, row


def parse(text: str, where: Any, *, halves: bool = False) -> Any:
  """Returns a JSON value.

  Args:
    text: JSON.
    where: file and line, for the message.
    halves: whether half a surrogate pair may stand in a string: then what
      holds it is counted and left out where it is tokenised.

  Raises:
    UserError: it is none, an object has a key twice, or a string is no text.
  """
  try:
    found = json.loads(text, object_pairs_hook=_object)
  except errors.UserError as error:
    raise errors.UserError(f'{where}: {error}') from error
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f'{where}: not JSON: {error}') from error
  # Only escapes can be halves of surrogates: files are read as UTF-8.
  if not halves and '\\ud' in text.lower():
    check_text(json.dumps(found, ensure_ascii=False), where)
  return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns the object; json keeps the last of two equal keys silently."""
  found = dict(pairs)
  if len(found) < len(pairs):
    ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
    raise errors.UserError(f'the key {key!r} stands there {count} times, '
                           f'beside {", ".join(map(repr, found)):.80}')
  return found


def check_text(text: str, where: Any) -> None:
  """Raises UserError at half of a surrogate pair, which is no character."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    half, before = text[error.start], text[:error.start][-40:]
    raise errors.UserError(
        f'{where}: {half!r} behind {before!r} is half a character; allowed: '
        'text that UTF-8 can write') from error


def check_once(name: str, where: Any, seen: dict[str, Any]) -> None:
  """Raises UserError where a picture comes again; enters it in `seen`."""
  key = file_names.normal(name)
  if key in seen:
    raise errors.UserError(
        f'{where}: {name!r} is the picture of {seen[key]}; allowed: each once')
  seen[key] = where


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


def image_names(path: pathlib.Path) -> list[str]:
  """Returns the images of a list: a name a line, up to `#` or a tab.

  Raises:
    UserError: a line is empty, or a name stands there twice.
  """
  listed = list(lines(path))
  while listed and not listed[-1].strip():
    listed.pop()
  found: dict[str, None] = {}
  for number, line in enumerate(listed, start=1):
    name = re.split('[#\t]', line)[0].strip()
    if not name or name in found:
      raise errors.UserError(
          f'{path}:{number}: found {line!r:.80}; allowed: an image that no '
          'other line has')
    found[name] = None
  return list(found)


def aligned(names: Sequence[str], path: pathlib.Path) -> list[str]:
  """Returns the lines of a file that has one for each name.

  Raises:
    UserError: it has more or fewer.
  """
  found = list(lines(path))
  while len(found) > len(names) and not found[-1].strip():
    found.pop()
  if len(found) != len(names):
    raise errors.UserError(
        f'{path} has {len(found)} lines; allowed: {len(names)}, as images')
  return found


def warn_of_missing(names: Iterable[Any], there: Collection[Any], what: str,
                    ) -> None:
  """Says how many of the names are not there.

  Args:
    names: of images, or their numbers.
    there: those that they are looked for in.
    what: that they are missing from what.
  """
  missing = [name for name in names if name not in there]
  if missing:
    logging.warning('%s: %d images, the first %r', what, len(missing),
                    missing[0])
