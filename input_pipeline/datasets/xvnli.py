"""XVNLI of IGLUE: does a sentence follow from a picture, or contradict it?

`--raw_dir` is the repository, its `datasets/XVNLI/`, or `annotations/` in that,
with `<language>/{train,dev,test,train_<k>}.jsonl`. The picture is the premise:
`sentence1` is not read. Rows whose annotators did not agree (`-`) are left out.
Translate-test: `annotations_machine-translate/` as `--raw_dir`; its folders say
from which language its English was translated, and stay that language's.
"""

from collections.abc import Iterator

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _labelled

_KEYS = ('gold_label', 'sentence2', 'Flikr30kID')  # Sic.


class Builder(_labelled.Builder):
  """Photographs of Flickr30k with sentences in five languages."""
  labels = ('contradiction', 'entailment', 'neutral')

  def items(self):
    return self.gather_rows(self._rows())

  def _rows(self) -> Iterator[_labelled.Row]:
    folder = text_files.below(text_files.below(
        self.folder, 'datasets/XVNLI', 'XVNLI'), 'annotations')
    for path in text_files.files(folder, '*.jsonl'):
      split = _labelled.split_of(path.name.partition('.')[0])
      language = split and self.language(path.parent.name, path)
      for where, row in text_files.rows(path, _KEYS) if language else ():
        if row['gold_label'] != '-':
          errors.check_choice(
              f'gold_label in {where}:', row['gold_label'], self.labels)
          yield _labelled.Row(
              split, (f'{row["Flikr30kID"]}.jpg',), language,
              _labelled.text_of(row['sentence2'], where),
              self.labels.index(row['gold_label']))
