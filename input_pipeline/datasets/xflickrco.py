"""IGLUE's xFlickr&CO: 2,000 test images in eight languages.

`--raw_dir` is the repository, its `datasets/xFlickrCO/`, or `annotations/` in
that, with `<language>/test.jsonl`; the few-shot files
`<language>/train_<k>.jsonl` are nested, and the largest becomes `train`.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

_KEYS = ('sentences', 'img_path')
_TRAIN = re.compile(r'train_(\d+)(?:x\d+)?\.jsonl(?:\.gz)?')


def _train_size(path: pathlib.Path) -> tuple[int, str]:
  match = _TRAIN.fullmatch(path.name)
  return int(match[1]) if match else 0, path.name


class Builder(_readers.Builder):
  """1,000 images of Flickr30k and 1,000 of COCO, a caption a language."""

  def items(self) -> list[_readers.Item]:
    folder = text_files.below(text_files.below(
        self.folder, 'datasets/xFlickrCO', 'xFlickrCO'), 'annotations')
    tests = self.by_language(
        (path.parent.name, path)
        for path in text_files.files(folder, 'test.jsonl'))
    tested = self.gather(self._captions('test', tests))
    if not tested:
      raise errors.UserError(f'{folder} has no <language>/test.jsonl')
    trains = {}
    for language, path in tests.items():
      if found := text_files.files(path.parent, 'train_*.jsonl'):
        trains[language] = max(found, key=_train_size)
    names = {item.image_id for item in tested}
    return tested + [item for item in self.gather(self._captions(
        'train', trains)) if item.image_id not in names]

  def _captions(self, split: str, paths: dict[str, pathlib.Path],
                ) -> Iterator[_readers.Captions]:
    for language, path in paths.items():
      for where, row in text_files.rows(
          path, _KEYS, once='img_path' if split == 'test' else ''):
        yield (str(row['img_path']), split, language,
               text_files.texts(row['sentences'], where))
