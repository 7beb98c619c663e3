"""One's own pictures: `captions.jsonl` and the pictures beside it.

A line an image: {"image": "cat.jpg", "split": "train", "captions": {"en":
["a cat"]}, "group": "optional, shared by pictures with the same answer"}.
"""

import os
import pathlib
from typing import Any

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import languages
from input_pipeline import text_files

FILE = 'captions.jsonl'
_KEYS = ('image', 'split', 'captions', 'group')


def _parse(line: str, where: str) -> dict[str, Any]:
  row = text_files.parse(line, where)
  if not isinstance(row, dict):
    raise errors.UserError(f'{where}: found {type(row).__name__}; allowed: '
                           'an object a line')
  for key in row:
    errors.check_choice(f'key in {where}:', key, _KEYS)
  image, captions = row.get('image'), row.setdefault('captions', {})
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
  errors.check_choice(f'split in {where}:', row.setdefault('split', 'test'),
                      builder.SPLITS)
  return row


class Builder(builder.ImageTextBuilder):
  """Pictures and captions of `--raw_dir`."""
  follows_arrival = True

  def items(self) -> list[builder.ImageItem]:
    folder = pathlib.Path(self.options.raw_dir or '.')
    path = folder / FILE
    if not self.options.raw_dir or not path.is_file():
      raise errors.UserError(
          f'--raw_dir is {self.options.raw_dir!r}; allowed: a folder with '
          f'{FILE} (docs/your_own_pictures.md has its format) and its pictures'
          + self.files.near(path))
    wanted = self.options.languages
    items: list[builder.ImageItem] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(text_files.lines(path), start=1):
      if not line.strip():
        continue
      where = f'{path}:{number}'
      row = _parse(line, where)
      name = row['image']
      inside = pathlib.PurePosixPath(file_names.normal(name))
      if inside.is_absolute() or '..' in inside.parts or '\0' in name:
        raise errors.UserError(f'{where}: "image" is {name!r}; allowed: a file '
                               f'below {folder}')
      file = self.files.find(name, folder)
      # Two files may differ in no more than NFC and NFD.
      text_files.check_once(
          str(file if os.path.isfile(file) else folder / inside), where, seen)
      items.append(builder.ImageItem(
          image_id=name, path=file, split=row['split'],
          group=row.get('group') or name,
          captions=[(code, text) for code, texts in row['captions'].items()
                    if not wanted or code in wanted for text in texts]))
    return items
