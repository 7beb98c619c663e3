"""STAIR's files of Japanese captions, for the images of COCO."""

import pathlib
import re

from input_pipeline import errors
from input_pipeline.caption_files import annotations

_KEYS = ('image_id', 'caption')
# Its release has the same captions once more, in words (`…_tokenized.json`).
_FILE = re.compile(r'stair_captions_v[\d.]+_(?P<split>train|val)\.json(\.gz)?')


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns `stair_captions_v*_{train,val}.json`, those that the folder has.

  Raises:
    UserError: there are two of a split.
  """
  found: dict[str, pathlib.Path] = {}
  for path in annotations.files(folder, 'stair_captions*.json'):
    match = _FILE.fullmatch(path.name)
    if match and match['split'] in found:
      raise errors.UserError(
          f'{found[match["split"]]} and {path} are both there; allowed: one '
          'of them')
    if match:
      found[match['split']] = path
  return sorted(found.values())


def read(builder: annotations.Builder) -> dict[int, list[tuple[str, str]]]:
  """Returns {COCO's number of an image: captions}; {} where none are wanted.

  Args:
    builder: whose folder and languages are meant.

  Raises:
    UserError: a file is not of that kind.
  """
  captions: dict[int, list[tuple[str, str]]] = {}
  for path in files(builder.folder):
    if not builder.language('ja', path):
      continue
    content = annotations.parse('\n'.join(annotations.lines(path)), path)
    annotations.check_keys(content, ('annotations',), path)
    for number, row in enumerate(content['annotations']):
      where = f'{path}, annotation {number}'
      annotations.check_keys(row, _KEYS, where)
      try:
        image = int(row['image_id'])
      except (TypeError, ValueError) as error:
        raise errors.UserError(f'{where}: image_id is {row["image_id"]!r:.80}; '
                               'allowed: a number') from error
      captions.setdefault(image, []).extend(
          ('ja', text) for text in annotations.texts(row['caption'], where))
  return captions
