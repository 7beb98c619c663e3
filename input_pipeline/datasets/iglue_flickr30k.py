"""IGLUE's Flickr30k: five English captions an image.

`--raw_dir` is the repository, its `datasets/flickr30k/`, or `annotations/` in
that, with `{train,valid,test}_ann.jsonl`. Machine-translated copies,
`annotations_machine-translate/<split>-<language>_gmt.jsonl`, are read as well;
some of them hold only the first caption of an image.
"""

import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline.caption_files import annotations

_FILE = re.compile(
    r'(?P<split>[a-z]+)(?:_ann|-(?P<language>\w+)_gmt)\.jsonl(\.gz)?')


class Builder(annotations.Builder):
  """29,000 / 1,014 / 1,000 images."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all files together."""
    captions: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    folder = annotations.below(
        self.folder, 'datasets/flickr30k', 'flickr30k')
    found = [(match, path) for path in annotations.files(folder, '*.jsonl')
             if (match := _FILE.fullmatch(path.name))]
    for split in builder.SPLITS:
      paths = [(match['language'] or 'en', path) for match, path in found
               if annotations.SPLITS.get(match['split']) == split]
      # The list that was published first: its order is that of the images.
      for language, path in sorted(
          self.by_language(paths).items(),
          key=lambda item: item[1].name.endswith('_gmt.jsonl')):
        for where, row in annotations.rows(
            path, ('sentences', 'img_path'), once='img_path'):
          captions.setdefault(str(row['img_path']), (split, []))[1].extend(
              (language, text)
              for text in annotations.texts(row['sentences'], where))
    if not captions:
      raise errors.UserError(
          f'{folder} has no {{train,valid,test}}_ann.jsonl')
    return [self.item(name, split, found)
            for name, (split, found) in captions.items()]
