"""Multi30K as its repository has it: text a line an image, and image lists.

Task 1 has one caption an image and its translations, Task 2 five captions of
their own in English and German, over the same images in the same order.
"""

import pathlib
import re

from input_pipeline import errors
from input_pipeline.caption_files import annotations

# Our split → the names it has in the files.
_SPLITS = {'train': ('train',), 'validation': ('val',),
           'test': ('test_2016_flickr', 'test_2016')}
# Of each task: Task 2 numbers its captions.
_FILES = {1: re.compile(r'(?P<split>\w+)\.(?P<language>\w+)(\.gz)?'),
          2: re.compile(r'(?P<split>\w+)\.[1-5]\.(?P<language>\w+)(\.gz)?')}


def captions_of_task(builder: annotations.Builder, task: int,
                     ) -> dict[str, tuple[str, list[tuple[str, str]]]]:
  """Returns {image name: (split, captions)} of a task.

  Args:
    builder: whose folder and languages are meant.
    task: 1 or 2.

  Raises:
    UserError: a file is missing, or has another number of lines than images.
  """
  folder = annotations.below(
      builder.folder, f'data/task{task}', f'task{task}')
  found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
  texts = [(match, path) for path in annotations.files(
      annotations.below(folder, 'raw'), '*')
           if (match := _FILES[task].fullmatch(path.name))
           and match['split'] in sum(_SPLITS.values(), ())]
  if not texts:
    raise errors.UserError(f'{folder} has no raw/train.'
                           f'{"1." if task == 2 else ""}en.gz and the like')
  for split, theirs in _SPLITS.items():
    paths = [(path, match['language']) for match, path in texts
             if match['split'] in theirs]
    if not paths:
      continue
    names = annotations.image_names(_list(builder, folder, theirs))
    for path, code in paths:
      language = builder.language(code, path)
      if language:
        for name, text in zip(
            names, annotations.aligned(names, path), strict=True):
          found.setdefault(name, (split, []))[1].append((language, text))
  return found


def _list(builder: annotations.Builder, folder: pathlib.Path,
          theirs: tuple[str, ...]) -> pathlib.Path:
  """Returns the list of a split's images, which both tasks share."""
  names = [f'image_splits/{name}{ending}.txt' for name in theirs
           for ending in ('', '_images')]
  return (annotations.find_or_none(folder, *names)
          or annotations.find(builder.folder, *names, *(
              f'{task}/{name}' for task in ('data/task1', 'task1')
              for name in names)))
