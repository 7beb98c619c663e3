"""MaRVL of IGLUE, and NLVR2: is a sentence true of two pictures?

`--raw_dir` is the repository, its `datasets/`, or any folder of these, with
`marvl-<language>.jsonl`, `marvl-<language>_train<k>.jsonl`, machine-translated
`marvl-<language>_gmt.jsonl` alone, or NLVR2's English `{train,dev,test1}.json`,
a line a sentence (below `nlvr2/`): MaRVL has no training of its own.
"""

from collections.abc import Iterator
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _labelled

_MARVL = re.compile(
    r'marvl-(?P<language>[a-z]+)(?:_(?P<split>train\d+)|_gmt)?\.jsonl(?:\.gz)?')
_NLVR2 = re.compile(r'(?P<split>train|dev|test1)\.json(?:l)?(?:\.gz)?')


class Builder(_labelled.Builder):
  """Pairs of pictures with sentences that are true of them, or false."""
  labels = ('false', 'true')
  num_pictures = 2

  def items(self):
    return self.gather_rows([*self._marvl(), *self._nlvr2()])

  def _marvl(self) -> Iterator[_labelled.Row]:
    paths = text_files.files(self.folder, 'marvl-*.jsonl')
    # Beside the originals, translations would be the same texts again.
    if not all('_gmt' in path.name for path in paths):
      paths = [path for path in paths if '_gmt' not in path.name]
    for path in paths:
      match = _MARVL.fullmatch(path.name)
      language = match and self.language(match['language'], path)
      for where, row in text_files.rows(path, (
          'caption', 'left_img', 'right_img', 'label')) if language else ():
        yield self._row(
            _labelled.split_of(match['split'] or 'test'),
            (str(row['left_img']), str(row['right_img'])), language,
            row['caption'], row['label'], where)

  def _nlvr2(self) -> Iterator[_labelled.Row]:
    for path in text_files.files(self.folder, '*.json*'):
      match = _NLVR2.fullmatch(path.name)
      is_ours = match and any('nlvr2' in part.lower() for part in path.parts)
      if is_ours and self.language('en', path):
        for where, row in text_files.rows(
            path, ('sentence', 'label', 'identifier')):
          # `dev-850-0-1` is the second sentence of `dev-850-0-img0.png` and 1.
          name = str(row['identifier']).rpartition('-')[0]
          yield self._row(
              _labelled.split_of(match['split'].rstrip('1')),
              (f'{name}-img0.png', f'{name}-img1.png'), 'en', row['sentence'],
              row['label'], where)

  def _row(self, split, images, language, text, label, where) -> _labelled.Row:
    label = str(label).lower()
    errors.check_choice(f'label in {where}:', label, self.labels)
    return _labelled.Row(
        split, images, language, _labelled.text_of(text, where),
        self.labels.index(label))
