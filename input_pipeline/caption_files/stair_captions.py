"""STAIR's files of Japanese captions, for the images of COCO."""

import pathlib

from input_pipeline.caption_files import annotations

_KEYS = ('image_id', 'caption')


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns `stair_captions*.json`, those that the folder has."""
  return sorted(folder.glob('stair_captions*.json'))


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
      annotations.check_keys(row, _KEYS, f'{path}, annotation {number}')
      captions.setdefault(row['image_id'], []).append(('ja', row['caption']))
  return captions
