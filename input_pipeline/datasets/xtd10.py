"""XTD10: 1,000 test images of COCO in ten languages.

`--raw_dir` holds `test_1kcaptions_<language>.txt`, line by line the captions
of `test_image_names.txt`.
"""

from input_pipeline import errors
from input_pipeline.building import builder
from input_pipeline.caption_files import annotations

_PREFIX = 'test_1kcaptions_'


class Builder(annotations.Builder):
  """One caption an image and language, all of them for testing."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all languages."""
    names = [line.strip() for line in annotations.lines(
        annotations.find(self.folder, 'test_image_names.txt'))]
    captions: list[list[tuple[str, str]]] = [[] for _ in names]
    paths = sorted(self.folder.rglob(f'{_PREFIX}*.txt'))
    if not paths:
      raise errors.UserError(f'{self.folder} has no {_PREFIX}<language>.txt')
    for path in paths:
      language = self.language(path.stem.removeprefix(_PREFIX), path)
      if language:
        for found, text in zip(
            captions, annotations.aligned(names, path), strict=True):
          found.append((language, text))
    return [self.item(name, 'test', found)
            for name, found in zip(names, captions, strict=True)]
