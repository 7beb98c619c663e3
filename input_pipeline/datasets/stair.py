"""STAIR captions alone: COCO in Japanese, in Karpathy's splits.

`--raw_dir` holds `stair_captions_v1.2_train.json` and `…_val.json`, which have
COCO's own splits, and `dataset_coco.json`, which says where an image belongs.
"""

import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _karpathy
from input_pipeline.datasets import _readers

# Its release has the same captions once more, in words (`…_tokenized.json`).
_FILE = re.compile(r'stair_captions_v[\d.]+_(?P<split>train|val)\.json(\.gz)?')


class Builder(_readers.Builder):
  """COCO's images with five captions each."""

  def items(self) -> list[_readers.Item]:
    captions = read(self)
    if captions is None:
      raise errors.UserError(
          f'{self.folder} has no stair_captions_v1.2_{{train,val}}.json')
    return _karpathy.items(self, 'coco', more=captions, has_own=False)


def read(builder: _readers.Builder,
         ) -> dict[int, list[tuple[str, str]]] | None:
  """Returns {COCO's number of an image: captions}; None = there is no file."""
  found = {}
  for path in text_files.files(builder.folder, 'stair_captions*.json'):
    match = _FILE.fullmatch(path.name)
    if match and match['split'] in found:
      raise errors.UserError(
          f'{found[match["split"]]} and {path} are both there; allowed: one '
          'of them')
    if match:
      found[match['split']] = path
  captions: dict[int, list[tuple[str, str]]] = {}
  for path in sorted(found.values()):
    if not builder.language('ja', path):
      continue
    rows = text_files.check_keys(
        text_files.read_json(path), ('annotations',), path)['annotations']
    for number, row in enumerate(rows):
      where = f'{path}, annotation {number}'
      text_files.check_keys(row, ('image_id', 'caption'), where)
      try:
        image = int(row['image_id'])
      except (TypeError, ValueError) as error:
        raise errors.UserError(f'{where}: image_id is {row["image_id"]!r:.80}; '
                               'allowed: a number') from error
      captions.setdefault(image, []).extend(
          ('ja', text) for text in text_files.texts(row['caption'], where))
  return captions if found else None
