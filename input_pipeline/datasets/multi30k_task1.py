"""Multi30K, Task 1: one English caption an image and its translations.

`--raw_dir` is the repository multi30k/dataset (or its folder `data/task1`):
`raw/{train,val,test_2016_flickr}.{en,de,fr,cs}.gz`, `image_splits/*.txt`.
"""

from input_pipeline.datasets import multi30k


class Builder(multi30k.Builder):
  """29,000 / 1,014 / 1,000 images of Flickr30k."""
  tasks = (1,)
