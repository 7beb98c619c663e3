"""Karpathy's JSON of COCO and Flickr30k: the splits that everyone uses."""

import pathlib
from typing import Any

from input_pipeline import choices
from input_pipeline import errors
from input_pipeline.building import builder as builder_lib
from input_pipeline.caption_files import annotations


def images(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the images of a file: filename, split (ours), and the rest.

  Raises:
    UserError: the file is not of that kind.
  """
  content = annotations.parse('\n'.join(annotations.lines(path)), path)
  found = annotations.check_keys(content, ('images',), path)['images']
  if not isinstance(found, list):
    raise errors.UserError(f'{path}: "images" is no list')
  for number, image in enumerate(found):
    where = f'{path}, image {number}'
    annotations.check_keys(image, ('filename', 'split', 'sentences'), where)
    choices.check(f'split in {where}:', image['split'], annotations.SPLITS)
    image['split'] = annotations.SPLITS[image['split']]
  return found


def picture(image: dict[str, Any]) -> str:
  """Returns the place of an image's picture below `images/`."""
  return pathlib.PurePosixPath(
      image.get('filepath', ''), image['filename']).as_posix()


def items(builder: annotations.Builder, name: str,
          ) -> list[builder_lib.ImageItem]:
  """Returns the items with English captions of `dataset_<name>.json`."""
  path = annotations.find(builder.folder, f'dataset_{name}.json')
  if not builder.language('en', path):
    return []
  found = []
  for image in images(path):
    found.append(builder.item(
        picture(image), image['split'], image_id=image['filename'],
        captions=(('en', annotations.check_keys(
            sentence, ('raw',), f'{path}, {image["filename"]}')['raw'])
                  for sentence in image['sentences'])))
  return found
