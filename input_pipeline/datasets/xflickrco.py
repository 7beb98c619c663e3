"""IGLUE's xFlickr&CO: 2,000 test images in eight languages.

`--raw_dir` is the repository, its `datasets/xFlickrCO/`, or `annotations/` in
that, with `<language>/test.jsonl`; the few-shot files
`<language>/train_<k>.jsonl` are nested, and the largest becomes `train`.
"""

import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline.caption_files import annotations

_KEYS = ('sentences', 'img_path')
_TRAIN = re.compile(r'train_(\d+)(?:x\d+)?\.jsonl(?:\.gz)?')


def _train_size(name: str) -> int:
  match = _TRAIN.fullmatch(name)
  return int(match[1]) if match else 0


class Builder(annotations.Builder):
  """1,000 images of Flickr30k and 1,000 of COCO, a caption a language."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all languages together."""
    captions: dict[tuple[str, str], list[tuple[str, str]]] = {}
    folder = annotations.below(annotations.below(
        self.folder, 'datasets/xFlickrCO', 'xFlickrCO'), 'annotations')
    for language, path in self.by_language(
        (path.parent.name, path)
        for path in annotations.files(folder, 'test.jsonl')).items():
      train = max(annotations.files(path.parent, 'train_*.jsonl'),
                  default=None,
                  key=lambda found: (_train_size(found.name), found.name))
      for split, file in (('test', path), ('train', train)):
        for where, row in annotations.rows(
            file, _KEYS, once='img_path' if split == 'test' else ''
        ) if file else ():
          captions.setdefault((split, str(row['img_path'])), []).extend(
              (language, text)
              for text in annotations.texts(row['sentences'], where))
    if not captions:
      raise errors.UserError(f'{folder} has no <language>/test.jsonl')
    tested = {name for split, name in captions if split == 'test'}
    return [self.item(name, split, found)
            for (split, name), found in captions.items()
            if split == 'test' or name not in tested]
