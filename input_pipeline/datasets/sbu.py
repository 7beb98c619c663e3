"""SBU captions as microsoft/M3P has them.

`--raw_dir` holds `sbu.csv`: apart by tabs, with a column `caption`. A row's
number, from 0, is the number in its image's id.
"""

from collections.abc import Iterator

from input_pipeline.building import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import caption_tables


class Builder(annotations.Builder):
  """About a million images, all of them for training."""

  def items(self) -> Iterator[builder.ImageItem]:
    return caption_tables.items(self, {'sbu.csv': ('train', '')})
