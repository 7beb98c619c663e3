"""IGLUE's Flickr30k: five English captions an image.

`--raw_dir` is the repository, its `datasets/flickr30k/`, or `annotations/` in
that, with `{train,valid,test}_ann.jsonl`. Machine-translated copies,
`annotations_machine-translate/<split>-<language>_gmt.jsonl`, are read as well;
some of them hold only the first caption of an image.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

_FILE = re.compile(
    r'(?P<split>[a-z]+)(?:_ann|-(?P<language>\w+)_gmt)\.jsonl(\.gz)?')


class Builder(_readers.Builder):
  """29,000 / 1,014 / 1,000 images."""

  def items(self) -> list[_readers.Item]:
    folder = text_files.below(self.folder, 'datasets/flickr30k', 'flickr30k')
    found = self.gather(self._captions(folder))
    if not found:
      raise errors.UserError(
          f'{folder} has no {{train,valid,test}}_ann.jsonl')
    return found

  def _captions(self, folder: pathlib.Path,
                ) -> Iterator[_readers.Captions]:
    # The list that was published first: its order is that of the images.
    for split, language, path in sorted(
        self.split_files(folder, _FILE),
        key=lambda found: found[2].name.endswith('_gmt.jsonl')):
      for where, row in text_files.rows(
          path, ('sentences', 'img_path'), once='img_path'):
        yield (str(row['img_path']), split, language,
               text_files.texts(row['sentences'], where))
