"""IGLUE's WIT: pictures of Wikipedia with their captions.

`--raw_dir` is the repository, its `datasets/wit/`, or `annotations/` in that,
with `{test,train,val}_<language>.jsonl`: rows with `wit_ix` and
`caption_reference_description`. Several images may share a caption: every one
of them is right. Machine-translated copies (`…_gmt.jsonl`) are not read.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

_FILE = re.compile(
    r'(?P<split>[a-z]+)_(?!\w+_gmt\.)(?P<language>\w+)\.jsonl(\.gz)?')
_KEYS = ('wit_ix', 'caption_reference_description')


class Builder(_readers.Builder):
  """500 to 1,000 captions in each of eleven languages."""

  def items(self) -> list[_readers.Item]:
    folder = text_files.below(self.folder, 'datasets/wit', 'wit')
    found = self.gather(self._captions(folder))
    if not found:
      raise errors.UserError(f'{folder} has no test_<language>.jsonl')
    return found

  def _captions(self, folder: pathlib.Path,
                ) -> Iterator[_readers.Captions]:
    for split, language, path in self.split_files(folder, _FILE):
      for where, row in text_files.rows(path, _KEYS):
        yield str(row['wit_ix']), split, language, text_files.texts(
            row['caption_reference_description'] or '', where)
