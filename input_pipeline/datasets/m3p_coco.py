"""COCO as microsoft/M3P has it: pickles of captions in en, ja and zh.

`--raw_dir` holds `uvl_captions/coco.<language>.pkl` (file name → list of
captions) and Karpathy's `dataset_coco.json`, which says where an image belongs.
"""

import pathlib

from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _karpathy
from input_pipeline.datasets import _readers
from input_pipeline.weights import pickles

_MAX_BYTES = 2**31


class Builder(_readers.Builder):
  """The images of both files."""
  prefix = 'coco'
  splits = 'dataset_coco.json'

  def items(self) -> list[_readers.Item]:
    folder = text_files.below(self.folder, 'uvl_captions')
    listed = text_files.find_or_none(folder, self.splits) or text_files.find(
        self.folder, self.splits)
    split_of = {image['filename']: image['split']
                for image in _karpathy.choose_test(
                    self.folder, _karpathy.images(listed))}
    paths = [path for path in text_files.files(folder, f'{self.prefix}.*.pkl')
             if path.suffix == '.pkl']
    if not paths:
      raise errors.UserError(f'{folder} has no {self.prefix}.<language>.pkl')
    captions: dict[str, list[tuple[str, str]]] = {}
    for language, path in self.by_language(
        (path.name.split('.')[1], path) for path in paths).items():
      for name, texts in _read(path).items():
        captions.setdefault(name, []).extend(
            (language, text) for text in texts)
    _readers.warn_of_missing(captions, split_of, f'not in {listed}')
    return [self.item(name, split, captions[name])
            for name, split in split_of.items() if name in captions]


def _read(path: pathlib.Path) -> dict[str, list[str]]:
  if path.stat().st_size > _MAX_BYTES:
    raise errors.UserError(f'{path} is larger than {_MAX_BYTES:,} bytes')
  try:
    found = pickles.loads(path.read_bytes())
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  # A damaged pickle makes the unpickler raise almost anything.
  except Exception as error:
    raise errors.UserError(
        f'{path}: damaged ({type(error).__name__}: {error})') from error
  if not isinstance(found, dict) or not all(isinstance(k, str) for k in found):
    raise errors.UserError(
        f'{path} holds {type(found).__name__}; allowed: a dict, file name → '
        'list of captions')
  captions = {}
  for name, value in found.items():
    where = f'{path}, {name!a}'
    captions[name] = text_files.texts(value, where)
    for text in (name, *captions[name]):
      text_files.check_text(text, where)
  return captions
