"""STAIR captions: COCO in Japanese, in Karpathy's splits.

`--raw_dir` holds `stair_captions_v1.2_train.json` and `…_val.json`, which have
COCO's own splits, and `dataset_coco.json`, which says where an image belongs.
"""

from input_pipeline import errors
from input_pipeline.building import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import karpathy

_KEYS = ('image_id', 'caption')


class Builder(annotations.Builder):
  """COCO's images with five captions each."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images that Karpathy's file has."""
    files = sorted(self.folder.glob('stair_captions*.json'))
    if not files:
      raise errors.UserError(f'{self.folder} has no stair_captions*.json')
    captions: dict[int, list[tuple[str, str]]] = {}
    for path in files:
      content = annotations.parse('\n'.join(annotations.lines(path)), path)
      annotations.check_keys(content, ('annotations',), path)
      for number, row in enumerate(content['annotations']):
        annotations.check_keys(row, _KEYS, f'{path}, annotation {number}')
        captions.setdefault(row['image_id'], []).append(('ja', row['caption']))
    if not self.language('ja', files[0]):
      return []
    path = annotations.find(self.folder, 'dataset_coco.json')
    return [
        self.item(karpathy.picture(image), image['split'],
                  captions[image['cocoid']], image_id=image['filename'])
        for image in karpathy.images(path) if image.get('cocoid') in captions]
