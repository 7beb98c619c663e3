"""COCO-CN: COCO in Chinese.

`--raw_dir` holds text files of lines `imgname#k<TAB>caption` (any name that
ends in `.txt`), and the lists `coco-cn_{train,val,test}.txt`. Images on no
list, as those of the extension, go into `train`. They are named as in COCO
(`imgname.jpg`), so that both sets' captions of one image are known to be its.
"""

import re

from input_pipeline import errors
from input_pipeline.building import builder
from input_pipeline.caption_files import annotations

_LISTS = {'train': 'coco-cn_train.txt', 'validation': 'coco-cn_val.txt',
          'test': 'coco-cn_test.txt'}
_LINE = re.compile(r'(?P<name>[^#\t]+)#[^\t]*\t(?P<text>.*)')


class Builder(annotations.Builder):
  """18,341 / 1,000 / 1,000 images."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with a caption."""
    splits = {}
    for split, name in _LISTS.items():
      for line in annotations.lines(annotations.find(self.folder, name)):
        splits[line.strip()] = split
    captions: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(self.folder.rglob('*.txt')):
      if path.name in _LISTS.values() or not self.language('zh', path):
        continue
      for number, line in enumerate(annotations.lines(path), start=1):
        match = _LINE.fullmatch(line)
        if line.strip() and not match:
          raise errors.UserError(
              f'{path}:{number}: found {line!r:.80}; allowed: '
              'imgname#k<TAB>caption')
        if match:
          captions.setdefault(match['name'], []).append(
              ('zh_CN', match['text']))
    return [self.item(f'{name}.jpg', splits.get(name, 'train'), found)
            for name, found in captions.items()]
