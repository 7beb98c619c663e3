"""IGLUE's WIT: pictures of Wikipedia with their captions.

`--raw_dir` holds `test_<language>.jsonl` (and `train_<language>.jsonl`,
`valid_…`), rows with `wit_ix` and `caption_reference_description`. Several
images may share a caption: every one of them is right.
"""

import re

from input_pipeline import errors
from input_pipeline.building import builder
from input_pipeline.caption_files import annotations

_FILE = re.compile(r'(?P<split>[a-z]+)_(?P<language>\w+)\.jsonl')
_KEYS = ('wit_ix', 'caption_reference_description')


class Builder(annotations.Builder):
  """500 to 1,000 captions in each of eleven languages."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all files together."""
    captions: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for path in sorted(self.folder.glob('*.jsonl')):
      match = _FILE.fullmatch(path.name)
      if not match or match['split'] not in annotations.SPLITS:
        continue
      language = self.language(match['language'], path)
      split = annotations.SPLITS[match['split']]
      if language:
        for _, row in annotations.rows(path, _KEYS):
          captions.setdefault(str(row['wit_ix']), (split, []))[1].append(
              (language, str(row['caption_reference_description'])))
    if not captions:
      raise errors.UserError(f'{self.folder} has no test_<language>.jsonl')
    return [self.item(name, split, found)
            for name, (split, found) in captions.items()]
