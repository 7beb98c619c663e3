"""Multi30K, Task 2: five captions an image, written in English and in German.

`--raw_dir` is the repository multi30k/dataset (or its folder `data/task2`):
`raw/{train,val,test_2016}.{1…5}.{en,de}.gz`, `image_splits/*.txt` (Task 1's
serve as well, since the images are the same).
"""

from input_pipeline.datasets import multi30k


class Builder(multi30k.Builder):
  """The images of Task 1."""
  tasks = (2,)
