"""Finds prepared datasets in their folder."""

import difflib
import json
import os
import pathlib

import tensorflow_datasets as tfds

from input_pipeline import console
from input_pipeline import errors


def open_builder(data_dir: str | os.PathLike[str], dataset: str,
                 split: str = '') -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a prepared dataset.

  Args:
    data_dir: folder of prepared datasets.
    dataset: name of the dataset.
    split: one that it must have; '' = none in particular.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  folder = pathlib.Path(data_dir)
  prepared = sorted(p.parent.name for p in folder.glob('*/manifest.json'))
  if dataset not in prepared:
    near = difflib.get_close_matches(dataset, prepared, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    raise errors.UserError(
        f'dataset {dataset!r} is not prepared in {folder}{hint}; there: '
        f'{", ".join(prepared) or "none"}. Run: python -m input_pipeline.'
        f'prepare --dataset={dataset} --data_dir={folder}')
  with console.hold_library_logs():
    builder = tfds.builder_from_directory(_builder_dir(folder / dataset))
  if split:
    errors.check_choice(f'split of {dataset}', split, builder.info.splits)
  return builder


def left_out(data_dir: str | os.PathLike[str], dataset: str,
             split: str) -> int:
  """Returns how many items of a split preparation left out, as far as known."""
  path = pathlib.Path(data_dir) / dataset / 'manifest.json'
  manifest = json.loads(path.read_text())
  return manifest.get('left_out', {}).get(split, 0)


def _builder_dir(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder below `folder` that holds TFDS's own description."""
  found = sorted(folder.glob('*/*/dataset_info.json'))
  if not found:
    raise errors.UserError(f'{folder} holds no complete TFDS dataset')
  return found[-1].parent
