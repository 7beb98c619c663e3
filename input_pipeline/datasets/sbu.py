"""SBU captions as microsoft/M3P has them, or as they were published.

`--raw_dir` holds `sbu.csv` (in `uvl_captions/` or itself): apart by tabs, with
a column `caption`; or `SBU_captioned_photo_dataset_captions.txt` (in `dataset/`
or itself), a caption a line. A row's number, from 0, is the number in its
image's id.
"""

from input_pipeline.datasets import conceptual_captions


class Builder(conceptual_captions.Builder):
  """About a million images, all of them for training."""
  tables = {'train': ('sbu.csv', 'SBU_captioned_photo_dataset_captions.txt')}
