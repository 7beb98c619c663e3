"""XTD10: 1,000 test images of COCO in eleven languages.

`--raw_dir` is the repository (Cross-lingual-Test-Dataset-XTD10): captions in
`{XTD10,MIC,STAIR}/test_1kcaptions_<language>.txt`, line by line those of
`XTD10/test_image_names.txt`.
"""

from absl import logging

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _readers

_PREFIX = 'test_1kcaptions_'


class Builder(_readers.Builder):
  """One caption an image and language, all of them for testing."""

  def items(self) -> list[_readers.Item]:
    names = text_files.image_names(text_files.find(
        self.folder, 'test_image_names.txt', 'XTD10/test_image_names.txt'))
    captions: list[list[tuple[str, str]]] = [[] for _ in names]
    paths = text_files.files(self.folder, f'{_PREFIX}*.txt')
    if not paths:
      raise errors.UserError(f'{self.folder} has no {_PREFIX}<language>.txt')
    self._warn_of_neighbours()
    for language, path in self.by_language(
        (path.name.removeprefix(_PREFIX).split('.')[0], path)
        for path in paths).items():
      for found, text in zip(
          captions, text_files.aligned(names, path), strict=True):
        found.append((language, text))
    return [self.item(name, 'test', found)
            for name, found in zip(names, captions, strict=True)]

  def _warn_of_neighbours(self) -> None:
    root = self.folder.resolve().parent
    beside = [name for name in ('MIC', 'STAIR') if (root / name).is_dir()]
    if self.folder.resolve().name == 'XTD10' and beside:
      logging.warning(
          '%s is read without the languages in %s beside it; --raw_dir=%s has '
          'them all', self.folder, ' and '.join(beside), root)
