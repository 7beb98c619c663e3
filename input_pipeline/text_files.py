"""Text files that users bring: where they lie, their lines and JSON rows.

A file may be packed (`.gz`). What is wrong is named by file and line.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
import gzip
import itertools
import json
import pathlib
import re
from typing import Any
import zlib

from absl import logging

from input_pipeline import errors
from input_pipeline import file_names

_DAMAGES = (OSError, EOFError, zlib.error)


def files(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """Returns the files below a folder whose names match, packed or not, sorted.

  Of `x` and `x.gz`, `x` is returned. Hidden files and folders (`._x`, `.git/`)
  are no data.
  """
  found = {
      path for ending in ('', '.gz') for path in folder.rglob(pattern + ending)
      if path.is_file() and not any(
          part.startswith('.') for part in path.relative_to(folder).parts)}
  return sorted(path for path in found if not _is_repeated(path, found))


def _is_repeated(path: pathlib.Path, beside: Collection[pathlib.Path]) -> bool:
  """Returns whether a packed file stands unpacked beside itself."""
  unpacked = path.with_suffix('')
  if path.suffix != '.gz' or unpacked not in beside:
    return False
  if not _is_copy(unpacked, path):
    logging.warning('%s and %s differ: the first is read', unpacked, path)
  return True


def _is_copy(unpacked: pathlib.Path, packed: pathlib.Path) -> bool:
  try:
    with open(unpacked, 'rb') as one, gzip.open(packed, 'rb') as other:
      return all(a == b for a, b in itertools.zip_longest(one, other))
  except _DAMAGES:  # Of a damaged file there is no telling.
    return False


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """Returns the first of the files (named without `.gz`) that is there."""
  found = find_or_none(folder, *names)
  if found is None:
    raise errors.UserError(
        f'{folder} has no {" or ".join(names)} (or .gz of it)'
        + file_names.Folders().near(folder / names[0]))
  return found


def find_or_none(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
  """Returns what `find` does, or None where that raises UserError."""
  folders = file_names.Folders()
  for name in names:
    there = [path for path in (
        folders.find(path.name, path.parent)
        for path in (folder / name, folder / f'{name}.gz')) if path.is_file()]
    if there:
      return next(path for path in there if not _is_repeated(path, there))
  return None


def below(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """Returns the first of the folders that is there, else `folder` itself."""
  return next((folder / name for name in names if (folder / name).is_dir()),
              folder)


def lines(path: pathlib.Path) -> Iterator[str]:
  """Yields a file's lines; raises UserError where it is no UTF-8 or damaged."""
  opened = gzip.open if path.suffix == '.gz' else open
  number = 0
  try:
    with opened(path, 'rb') as file:
      for number, line in enumerate(file, start=1):
        text = line.decode('utf-8-sig' if number == 1 else 'utf-8')
        yield text.rstrip('\r\n')
  except UnicodeDecodeError as error:
    raise errors.UserError(f'{path}:{number}: not UTF-8: {error}') from error
  except _DAMAGES as error:
    raise errors.UserError(f'{path}: damaged: {error}') from error


def rows(path: pathlib.Path, keys: Sequence[str], *, once: str = '',
         ) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (file:line, object) of a file of JSON lines.

  Args:
    once: the key of a picture that has no other line.

  Raises:
    UserError: a line is no object with these keys.
  """
  seen: dict[str, str] = {}
  for number, line in enumerate(lines(path), start=1):
    if line.strip():
      where = f'{path}:{number}'
      row = check_keys(parse(line, where), keys, where)
      if once:
        check_once(str(row[once]), where, seen)
      yield where, row


def read_json(path: pathlib.Path) -> Any:
  """Returns the value of a JSON file; see `parse`."""
  return parse('\n'.join(lines(path)), path)


def parse(text: str, where: Any, *, halves: bool = False) -> Any:
  """Returns a JSON value.

  Args:
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
  # json keeps the last of two equal keys silently.
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
  """Returns `row`; raises UserError if it is no object with these keys."""
  if not isinstance(row, dict) or not set(keys) <= set(row):
    found = ', '.join(row) if isinstance(row, dict) else type(row).__name__
    raise errors.UserError(
        f'{where}: found {found or "nothing"}; allowed: an object with '
        f'{", ".join(keys)}')
  return row


def texts(value: Any, where: Any) -> list[str]:
  """Returns captions; raises UserError if they are no string or strings."""
  found = [value] if isinstance(value, str) else value
  if not isinstance(found, list) or not all(isinstance(t, str) for t in found):
    raise errors.UserError(f'{where}: captions are {value!r:.80}; allowed: '
                           'strings')
  return found


def image_names(path: pathlib.Path) -> list[str]:
  """Returns the images of a list: a name a line, up to `#` or a tab, once."""
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
  """Returns a file's lines; raises UserError if they are not one a name."""
  found = list(lines(path))
  while len(found) > len(names) and not found[-1].strip():
    found.pop()
  if len(found) != len(names):
    raise errors.UserError(
        f'{path} has {len(found)} lines; allowed: {len(names)}, as images')
  return found
