"""STAIR captions alone: COCO in Japanese, in Karpathy's splits.

`--raw_dir` holds `stair_captions_v1.2_train.json` and `…_val.json`, which have
COCO's own splits, and `dataset_coco.json`, which says where an image belongs.
"""

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import karpathy
from input_pipeline.caption_files import stair_captions


class Builder(annotations.Builder):
  """COCO's images with five captions each."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images that Karpathy's file has."""
    if not stair_captions.files(self.folder):
      raise errors.UserError(
          f'{self.folder} has no stair_captions_v1.2_{{train,val}}.json')
    return karpathy.items(
        self, 'coco', more=stair_captions.read(self), has_own=False)
