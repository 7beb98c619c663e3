"""Multi30K, Task 1: one English caption an image and its translations.

`--raw_dir` is the repository multi30k/dataset (or its folder `data/task1`):
`raw/{train,val,test_2016_flickr}.{en,de,fr,cs}.gz`, `image_splits/*.txt`.
"""

from input_pipeline import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import multi30k


class Builder(annotations.Builder):
  """29,000 / 1,014 / 1,000 images of Flickr30k."""

  def items(self) -> list[builder.ImageItem]:
    return [self.item(name, split, captions) for name, (split, captions)
            in multi30k.captions_of_task(self, 1).items()]
