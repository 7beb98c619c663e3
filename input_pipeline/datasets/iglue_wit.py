"""IGLUE's WIT: pictures of Wikipedia with their captions.

`--raw_dir` is the repository, its `datasets/wit/`, or `annotations/` in that,
with `{test,train,val}_<language>.jsonl`: rows with `wit_ix` and
`caption_reference_description`. Several images may share a caption: every one
of them is right. Machine-translated copies (`…_gmt.jsonl`) are not read.
"""

import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline.caption_files import annotations

_FILE = re.compile(
    r'(?P<split>[a-z]+)_(?P<language>\w+?)(?P<translated>_gmt)?'
    r'\.jsonl(\.gz)?')
_KEYS = ('wit_ix', 'caption_reference_description')


class Builder(annotations.Builder):
  """500 to 1,000 captions in each of eleven languages."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all files together."""
    captions: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    folder = annotations.below(self.folder, 'datasets/wit', 'wit')
    found = [(match, path) for path in annotations.files(folder, '*.jsonl')
             if (match := _FILE.fullmatch(path.name))]
    for split in builder.SPLITS:
      for language, path in self.by_language(
          (match['language'], path) for match, path in found
          if annotations.SPLITS.get(match['split']) == split
          and not match['translated']).items():
        for where, row in annotations.rows(path, _KEYS):
          captions.setdefault(str(row['wit_ix']), (split, []))[1].extend(
              (language, text) for text in annotations.texts(
                  row['caption_reference_description'] or '', where))
    if not captions:
      raise errors.UserError(f'{folder} has no test_<language>.jsonl')
    return [self.item(name, split, found)
            for name, (split, found) in captions.items()]
