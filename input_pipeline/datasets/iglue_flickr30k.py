"""IGLUE's Flickr30k: five English captions an image.

`--raw_dir` is the repository, its `datasets/flickr30k/`, or `annotations/` in
that, with `{train,valid,test}_ann.jsonl`. Machine-translated copies,
`annotations_machine-translate/<split>-<language>_gmt.jsonl`, are read as well;
some of them hold only the first caption of an image.
"""

from collections.abc import Iterator
import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers


class Builder(_readers.Builder):
  """29,000 / 1,014 / 1,000 images.

  Attributes:
    places: where the files may lie in the repository.
    pattern: of their names; no language = English.
    keys: of an image's name and captions; the first of one row alone, if
      `is_once`.
  """
  places = ('datasets/flickr30k', 'flickr30k')
  pattern = re.compile(
      r'(?P<split>[a-z]+)(?:_ann|-(?P<language>\w+)_gmt)\.jsonl(\.gz)?')
  keys = ('img_path', 'sentences')
  is_once = True

  def items(self) -> list[_readers.Item]:
    found = self.gather(self._captions())
    if not found:
      raise errors.UserError(
          f'{self.folder} has no file called as {self.pattern.pattern}')
    return found

  def _captions(self) -> Iterator[_readers.Captions]:
    folder, (name, texts) = text_files.below(
        self.folder, *self.places), self.keys
    # The list that was published first: its order is that of the images.
    found = [(match, path) for path in sorted(
        text_files.files(folder, '*.jsonl'),
        key=lambda path: path.name.endswith('_gmt.jsonl'))
             if (match := self.pattern.fullmatch(path.name))]
    for split in builder.SPLITS:
      for language, path in self.by_language(
          (match['language'] or 'en', path) for match, path in found
          if _readers.SPLITS.get(match['split']) == split).items():
        for where, row in text_files.rows(
            path, self.keys, once=name if self.is_once else ''):
          yield (str(row[name]), split, language,
                 text_files.texts(row[texts] or '', where))
