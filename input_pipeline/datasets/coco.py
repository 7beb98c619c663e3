"""COCO captions in English, and in Japanese where STAIR's lie beside them.

`--raw_dir` holds `dataset_coco.json`, Karpathy's splits; `train` and `restval`
are one split (113,287 images). `stair_captions*.json` may be there too.
Pictures, where there are any, in `images/train2014/…`.
"""

from input_pipeline.datasets import _karpathy
from input_pipeline.datasets import _readers
from input_pipeline.datasets import stair


class Builder(_readers.Builder):
  """113,287 / 5,000 / 5,000 images with five captions each, a language."""

  def items(self) -> list[_readers.Item]:
    return _karpathy.items(self, 'coco', more=stair.read(self))
