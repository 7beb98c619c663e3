"""Karpathy's JSON of COCO and Flickr30k: the splits that everyone uses."""

from collections.abc import Mapping, Sequence
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
  seen: dict[str, str] = {}
  for number, image in enumerate(found):
    where = f'{path}, image {number}'
    annotations.check_keys(image, ('filename', 'split', 'sentences'), where)
    annotations.check_once(str(image['filename']), where, seen)
    choices.check(f'split in {where}:', image['split'], annotations.SPLITS)
    image['split'] = annotations.SPLITS[image['split']]
  return found


def picture(image: dict[str, Any]) -> str:
  """Returns the place of an image's picture below `images/`."""
  return pathlib.PurePosixPath(
      image.get('filepath', ''), image['filename']).as_posix()


def items(builder: annotations.Builder, name: str, *,
          more: Mapping[int, Sequence[tuple[str, str]]] | None = None,
          ) -> list[builder_lib.ImageItem]:
  """Returns the images of `dataset_<name>.json` that have captions.

  Args:
    builder: whose folder and languages are meant.
    name: of the file.
    more: {COCO's number of an image: captions in other languages}.
  """
  path = annotations.find(builder.folder, f'dataset_{name}.json')
  is_wanted, found = bool(builder.language('en', path)), []
  for image in images(path):
    captions = [('en', annotations.check_keys(
        sentence, ('raw',), f'{path}, {image["filename"]}')['raw'])
                for sentence in image['sentences'] if is_wanted]
    captions += (more or {}).get(image.get('cocoid'), ())
    if captions:
      found.append(builder.item(picture(image), image['split'], captions,
                                image_id=image['filename']))
  return found
