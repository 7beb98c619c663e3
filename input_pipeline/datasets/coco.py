"""COCO captions in English, in Karpathy's splits.

`--raw_dir` holds `dataset_coco.json`; `train` and `restval` are one split
(113,287 images). Pictures, where there are any, in `images/train2014/…`.
"""

from input_pipeline.building import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import karpathy


class Builder(annotations.Builder):
  """113,287 / 5,000 / 5,000 images with five captions each."""

  def items(self) -> list[builder.ImageItem]:
    return karpathy.items(self, 'coco')
