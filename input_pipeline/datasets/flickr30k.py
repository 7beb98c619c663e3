"""Flickr30k captions in English, in Karpathy's splits.

`--raw_dir` holds `dataset_flickr30k.json`; pictures, where there are any, in
`images/`.
"""

from input_pipeline.datasets import _karpathy
from input_pipeline.datasets import _readers


class Builder(_readers.Builder):
  """29,000 / 1,014 / 1,000 images with five captions each."""

  def items(self) -> list[_readers.Item]:
    return _karpathy.items(self, 'flickr30k')
