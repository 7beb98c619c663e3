"""Multi30K as retrieval papers use it: five captions in en and de, one in fr
and cs.

`--raw_dir` is the repository multi30k/dataset: text a line an image, and lists
of images. Task 1 has one caption an image and its translations, Task 2 five
captions of their own in English and German, over the same images in the same
order; Task 1 is read in the languages that only it has.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

# Our split → the names it has in the files.
_SPLITS = {'train': ('train',), 'validation': ('val',),
           'test': ('test_2016_flickr', 'test_2016')}
# Of each task: Task 2 numbers its captions.
_FILES = {1: re.compile(r'(?P<split>\w+)\.(?P<language>\w+)(\.gz)?'),
          2: re.compile(r'(?P<split>\w+)\.[1-5]\.(?P<language>\w+)(\.gz)?')}


class Builder(_readers.Builder):
  """29,000 / 1,014 / 1,000 images of Flickr30k."""
  # Of a later task, only languages that no earlier one has.
  tasks: tuple[int, ...] = (2, 1)

  def items(self) -> list[_readers.Item]:
    captions: list[_readers.Captions] = []
    for task in self.tasks:
      there = {language for _, _, language, _ in captions}
      captions += [caption for caption in self._captions(task)
                   if caption[2] not in there]
    return self.gather(captions)

  def _captions(self, task: int) -> Iterator[_readers.Captions]:
    folder = text_files.below(self.folder, f'data/task{task}', f'task{task}')
    found = [(match, path) for path in text_files.files(
        text_files.below(folder, 'raw'), '*')
             if (match := _FILES[task].fullmatch(path.name))
             and match['split'] in sum(_SPLITS.values(), ())]
    if not found:
      raise errors.UserError(f'{folder} has no raw/train.'
                             f'{"1." if task == 2 else ""}en.gz and the like')
    for split, theirs in _SPLITS.items():
      paths = [(path, match['language']) for match, path in found
               if match['split'] in theirs]
      names = (text_files.image_names(self._list(folder, theirs)) if paths
               else [])
      for path, code in paths:
        if language := self.language(code, path):
          for name, text in zip(
              names, text_files.aligned(names, path), strict=True):
            yield name, split, language, [text]

  def _list(self, folder: pathlib.Path,
            theirs: tuple[str, ...]) -> pathlib.Path:
    """Returns the list of a split's images, which both tasks share."""
    names = [f'image_splits/{name}{ending}.txt' for name in theirs
             for ending in ('', '_images')]
    return (text_files.find_or_none(folder, *names)
            or text_files.find(self.folder, *names, *(
                f'{task}/{name}' for task in ('data/task1', 'task1')
                for name in names)))
