"""Karpathy's JSON of COCO and Flickr30k: the splits that everyone uses."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import logging

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

# VOLTA's list of the 1,000 test images that multilingual papers report.
TEST_LIST = 'test1k_ids.txt'


def images(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the images of a file: filename, split (ours), and the rest."""
  found = text_files.check_keys(
      text_files.read_json(path), ('images',), path)['images']
  if not isinstance(found, list):
    raise errors.UserError(f'{path}: "images" is no list')
  seen: dict[str, str] = {}
  for number, image in enumerate(found):
    where = f'{path}, image {number}'
    text_files.check_keys(image, ('filename', 'split', 'sentences'), where)
    text_files.check_once(str(image['filename']), where, seen)
    errors.check_choice(f'split in {where}:', image['split'], _readers.SPLITS)
    image['split'] = _readers.SPLITS[image['split']]
  return found


def items(builder: _readers.Builder, name: str, *,
          more: Mapping[int, Sequence[tuple[str, str]]] | None = None,
          has_own: bool = True) -> list[_readers.Item]:
  """Returns the images of `dataset_<name>.json` that have captions.

  Args:
    name: of the file; `<name>/dataset.json` is an older one.
    more: {COCO's number of an image: captions in other languages}.
    has_own: the captions of the file itself are wanted as well.
  """
  path = text_files.find(
      builder.folder, f'dataset_{name}.json', f'{name}/dataset.json')
  is_wanted = has_own and bool(builder.language('en', path))
  listed, more = images(path), more or {}
  _readers.warn_of_missing(
      more, {image.get('cocoid') for image in listed}, f'not in {path}')
  listed = choose_test(builder.folder, listed)
  found: list[_readers.Item] = []
  for image in listed:
    where = f'{path}, {image["filename"]}'
    captions = [
        ('en', text) for sentence in image['sentences'] if is_wanted
        for text in text_files.texts(
            text_files.check_keys(sentence, ('raw',), where)['raw'], where)]
    captions += more.get(image.get('cocoid'), ())
    if captions:
      picture = pathlib.PurePosixPath(
          image.get('filepath', ''), image['filename']).as_posix()
      found.append(builder.item(picture, image['split'], captions,
                                image_id=image['filename']))
  return found


def choose_test(folder: pathlib.Path, listed: list[dict[str, Any]],
                ) -> list[dict[str, Any]]:
  """Returns the images; of COCO's test those of a list, if there is one."""
  path = text_files.find_or_none(folder, TEST_LIST)
  if not path or not any('cocoid' in image for image in listed):
    return listed
  wanted = set(text_files.image_names(path))
  known = {str(image.get('cocoid')) for image in listed
           if image['split'] == 'test'}
  if wanted - known:
    raise errors.UserError(f'{path}: {min(wanted - known)!r} is no image of '
                           'the test split; allowed: COCO\'s numbers')
  logging.warning('%s: test has its %d images instead of %d', path,
                  len(wanted), len(known))
  return [image for image in listed if image['split'] != 'test'
          or str(image.get('cocoid')) in wanted]
