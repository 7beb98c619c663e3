"""The captions of microsoft/M3P: pickled dicts, file name → list of strings."""

import pathlib
from typing import Any

from input_pipeline import builder as builder_lib
from input_pipeline import errors
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import karpathy
from input_pipeline.weights import pickles

_MAX_BYTES = 2**31


def items(builder: annotations.Builder, prefix: str, splits: str,
          ) -> list[builder_lib.ImageItem]:
  """Returns the items of `<prefix>.<language>.pkl`.

  Args:
    builder: whose folder and languages are meant.
    prefix: 'coco' or 'flicker' (sic).
    splits: Karpathy's file beside them, which says where an image belongs.
  """
  folder = annotations.below(builder.folder, 'uvl_captions')
  listed = annotations.find_or_none(folder, splits) or annotations.find(
      builder.folder, splits)
  split_of = {image['filename']: image['split']
              for image in karpathy.images(listed)}
  paths = [path for path in annotations.files(folder, f'{prefix}.*.pkl')
           if path.suffix == '.pkl']
  if not paths:
    raise errors.UserError(f'{folder} has no {prefix}.<language>.pkl')
  captions: dict[str, list[tuple[str, str]]] = {}
  for language, path in builder.by_language(
      (path.name.split('.')[1], path) for path in paths).items():
    for name, texts in _read(path).items():
      captions.setdefault(name, []).extend(
          (language, text)
          for text in annotations.texts(texts, f'{path}, {name}'))
  annotations.warn_of_missing(captions, split_of, f'not in {listed}')
  return [builder.item(name, split, captions[name])
          for name, split in split_of.items() if name in captions]


def _read(path: pathlib.Path) -> dict[str, Any]:
  """Returns the captions of a file.

  Raises:
    UserError: it is damaged, or asks for more than text.
  """
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
  for name, texts in found.items():
    where = f'{path}, {name!a}'
    for text in (name, *annotations.texts(texts, where)):
      annotations.check_text(text, where)
  return found
