"""Does the caption fit the picture? Made of any captioned pictures.

`--raw_dir` is a folder as of the dataset `captions`: `captions.jsonl` and the
pictures beside it. Each caption is asked twice: of its own picture, where it
fits, and of another one of the split, where it does not. So half of the answers
are `yes`, and no text tells which: every caption is right once and wrong once.
"""

from collections.abc import Sequence
import random

from input_pipeline import builder
from input_pipeline import items as items_lib
from input_pipeline.datasets import captions


class Builder(captions.Builder):
  """Pictures of `--raw_dir`, with captions that fit and others."""
  labels = ('no', 'yes')

  def items(self) -> list[builder.ImageItem]:
    pictures = super().items()
    return [item for split in items_lib.SPLITS for item in self._mixed(
        [item for item in pictures if item.split == split])]

  def _mixed(self, pictures: Sequence[builder.ImageItem],
             ) -> list[builder.ImageItem]:
    """Returns pictures with their captions, and those of one other each."""
    order = list(range(len(pictures)))
    random.Random(0).shuffle(order)
    others = dict(zip(order, order[1:] + order[:1], strict=True))
    return [item._replace(captions=[
        (*caption, 1) for caption in item.captions] + [
            (*caption, 0) for caption in pictures[others[i]].captions
            if pictures[others[i]].group != item.group])
            for i, item in enumerate(pictures)]
