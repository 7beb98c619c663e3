"""COCO-CN: COCO in Chinese.

`--raw_dir` is the release (`coco-cn-version1805v1.1/`) or a folder above it:
`imageid.human-written-caption.txt`, lines of `imgname#k<TAB>caption`, and the
lists `coco-cn_{train,val,test}.txt`. `coco-cn_ext.icap2020.txt` of the set's
repository, where it is there, adds to `train`. Translated sentences, segmented
copies and tags are not read. Images are named as in COCO (`imgname.jpg`), so
that both sets' captions of one image are known to be its.
"""

import pathlib
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

_LISTS = {'train': 'coco-cn_train.txt', 'validation': 'coco-cn_val.txt',
          'test': 'coco-cn_test.txt'}
_CAPTIONS = 'imageid.human-written-caption.txt'
_EXTENSION = 'coco-cn_ext.icap2020.txt'
_LINE = re.compile(r'(?P<name>[^#\t]+)#[^\t]*\t(?P<text>.*)')


class Builder(_readers.Builder):
  """18,341 / 1,000 / 1,000 images."""

  def items(self) -> list[_readers.Item]:
    split_of: dict[str, str] = {}
    for split, name in _LISTS.items():
      for image in text_files.image_names(self._find(name)):
        if split_of.setdefault(image, split) != split:
          raise errors.UserError(f'{image!r} is in {_LISTS[split]} and in '
                                 f'{_LISTS[split_of[image]]}; allowed: in one')
    captions = self._captions_of(_CAPTIONS)
    _readers.warn_of_missing(split_of, captions, f'not in {_CAPTIONS}')
    if text_files.files(self.folder, _EXTENSION):
      for name, found in self._captions_of(_EXTENSION).items():
        if split_of.get(name, 'train') == 'train':
          captions.setdefault(name, []).extend(found)
    split_of |= {name: 'train' for name in captions if name not in split_of}
    return [self.item(f'{name}.jpg', split, captions[name])
            for name, split in split_of.items() if name in captions]

  def _find(self, name: str) -> pathlib.Path:
    found = text_files.files(self.folder, name)
    if len(found) != 1:
      raise errors.UserError(
          f'{self.folder} has {len(found) or "no"} {name}; allowed: one')
    return found[0]

  def _captions_of(self, name: str) -> dict[str, list[tuple[str, str]]]:
    path = self._find(name)
    captions: dict[str, list[tuple[str, str]]] = {}
    if not self.language('zh', path):
      return {}
    for number, line in enumerate(text_files.lines(path), start=1):
      match = _LINE.fullmatch(line)
      if line.strip() and not match:
        raise errors.UserError(
            f'{path}:{number}: found {line!r:.80}; allowed: '
            'imgname#k<TAB>caption')
      if match:
        captions.setdefault(match['name'], []).append(('zh_CN', match['text']))
    return captions
