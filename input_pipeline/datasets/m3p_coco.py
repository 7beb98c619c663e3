"""COCO as microsoft/M3P has it: pickles of captions in en, ja and zh.

`--raw_dir` holds `uvl_captions/coco.<language>.pkl` and Karpathy's
`dataset_coco.json`, which says where an image belongs.
"""

from input_pipeline import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import m3p_captions


class Builder(annotations.Builder):
  """The images of both files."""

  def items(self) -> list[builder.ImageItem]:
    return m3p_captions.items(self, 'coco', 'dataset_coco.json')
