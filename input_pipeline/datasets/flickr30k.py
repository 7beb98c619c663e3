"""Flickr30k captions in English, in Karpathy's splits.

`--raw_dir` holds `dataset_flickr30k.json`; pictures, where there are any, in
`images/`.
"""

from input_pipeline import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import karpathy


class Builder(annotations.Builder):
  """29,000 / 1,014 / 1,000 images with five captions each."""

  def items(self) -> list[builder.ImageItem]:
    return karpathy.items(self, 'flickr30k')
