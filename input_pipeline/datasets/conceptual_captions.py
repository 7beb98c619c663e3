"""Conceptual Captions as microsoft/M3P has it, or as it was published.

`--raw_dir` holds (in `uvl_captions/` or itself) `google.csv` and, if there is
one, `google.valid.csv`: apart by tabs, with a column `caption`; or
`Train_GCC-training.tsv` and `Validation_GCC-1.1.0-Validation.tsv`: caption,
tab, URL. A row's number, from 0, is the number in its image's id (`valid_`
stands before it in the second table).
"""

from collections.abc import Iterator

from input_pipeline import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import caption_tables


class Builder(annotations.Builder):
  """3.3 million images."""

  def items(self) -> Iterator[builder.ImageItem]:
    return caption_tables.items(self, {
        '': ('train', ('google.csv', 'Train_GCC-training.tsv',
                       'Train-GCC-training.tsv')),
        'valid_': ('validation', ('google.valid.csv',
                                  'Validation_GCC-1.1.0-Validation.tsv'))})
