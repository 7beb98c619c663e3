"""One's own pictures: `captions.jsonl` and the pictures beside it.

A line an image: {"image": "cat.jpg", "split": "train", "captions": {"en":
["a cat"]}, "group": "optional, shared by pictures with the same answer"}.
"""

import json
import pathlib
from typing import Any

from input_pipeline import choices
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline.building import builder

FILE = 'captions.jsonl'
_KEYS = ('image', 'split', 'captions', 'group')


def _parse(line: str, where: str) -> dict[str, Any]:
  """Returns one checked row.

  Raises:
    UserError: not JSON, or a key or value that the format does not have.
  """
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    raise errors.UserError(f'{where}: not JSON: {error}') from error
  if not isinstance(row, dict):
    raise errors.UserError(f'{where}: found {type(row).__name__}; allowed: '
                           'an object a line')
  for key in row:
    choices.check(f'key in {where}:', key, _KEYS)
  image, captions = row.get('image'), row.get('captions', {})
  if not isinstance(image, str) or not image:
    raise errors.UserError(f'{where}: "image" is {image!r}; allowed: the name '
                           'of a picture beside the file')
  if not isinstance(captions, dict) or not all(
      isinstance(texts, list) and all(isinstance(t, str) for t in texts)
      for texts in captions.values()):
    raise errors.UserError(f'{where}: "captions" is {captions!r}; allowed: '
                           '{"language": ["caption", …]}')
  for code in captions:
    try:
      languages.get(code)
    except errors.UserError as error:
      raise errors.UserError(f'{where}: {error}') from error
  if not isinstance(row.get('group') or '', str):
    raise errors.UserError(f'{where}: "group" is {row["group"]!r}; allowed: '
                           'a string')
  choices.check(f'split in {where}:', row.setdefault('split', 'test'),
                builder.SPLITS)
  return row


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise errors.UserError(f'{path}: not UTF-8: {error}') from error


class Builder(builder.ImageTextBuilder):
  """Pictures and captions of `--raw_dir`."""

  def items(self) -> list[builder.ImageItem]:
    folder = pathlib.Path(self.options.raw_dir or '.')
    path = folder / FILE
    if not self.options.raw_dir or not path.is_file():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; allowed: a folder with '
          f'{FILE} (docs/your_own_pictures.md has its format) and its pictures')
    wanted = self.options.languages
    items, seen = [], set()
    for number, line in enumerate(_read(path).split('\n'), start=1):
      if not line.strip():
        continue
      row = _parse(line, f'{path}:{number}')
      name = row['image']
      if name in seen:
        raise errors.UserError(f'{path}:{number}: "image" {name!r} stands '
                               'there twice; allowed: one line an image')
      seen.add(name)
      inside = pathlib.PurePath(name)
      if inside.is_absolute() or '..' in inside.parts:
        raise errors.UserError(f'{path}:{number}: "image" is {name!r}; '
                               f'allowed: a file below {folder}')
      items.append(builder.ImageItem(
          image_id=name, path=folder / name, split=row['split'],
          group=row.get('group') or name,
          captions=[(code, text) for code, texts in row['captions'].items()
                    if not wanted or code in wanted for text in texts]))
    return items
