"""IGLUE's Flickr30k: five English captions an image.

`--raw_dir` is `flickr30k/annotations/` with `{train,valid,test}_ann.jsonl`.
Machine-translated copies, `<split>-<language>_gmt.jsonl`, are read as well;
some of them hold only the first caption of an image.
"""

import re

from input_pipeline import errors
from input_pipeline.building import builder
from input_pipeline.caption_files import annotations

_FILE = re.compile(
    r'(?P<split>[a-z]+)(?:_ann|-(?P<language>\w+)_gmt)\.jsonl')


class Builder(annotations.Builder):
  """29,000 / 1,014 / 1,000 images."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all files together."""
    captions: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for path in sorted(self.folder.rglob('*.jsonl')):
      match = _FILE.fullmatch(path.name)
      if not match or match['split'] not in annotations.SPLITS:
        continue
      language = self.language(match['language'] or 'en', path)
      split = annotations.SPLITS[match['split']]
      if language:
        for where, row in annotations.rows(
            path, ('sentences', 'img_path'), once='img_path'):
          captions.setdefault(str(row['img_path']), (split, []))[1].extend(
              (language, text)
              for text in annotations.texts(row['sentences'], where))
    if not captions:
      raise errors.UserError(
          f'{self.folder} has no {{train,valid,test}}_ann.jsonl')
    return [self.item(name, split, found)
            for name, (split, found) in captions.items()]
