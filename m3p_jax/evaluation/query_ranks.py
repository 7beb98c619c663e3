"""The rank of every query on disk, for intervals and tests between runs.

WORKDIR/ranks/RESULT.SETTING.npz holds `LANGUAGE/DIRECTION/rank` and
`LANGUAGE/DIRECTION/unit`, see `statistics.Queries`.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from input_pipeline import errors
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import statistics


def path_for(result: pathlib.Path, setting: str) -> pathlib.Path:
  """Returns the file that belongs to a setting of a result's file."""
  return result.parent / 'ranks' / f'{result.stem}.{setting}.npz'


def update(result: pathlib.Path, setting: str,
           languages: Mapping[str, statistics.Language]) -> None:
  """Writes the languages' ranks beside those of others, whole or not at all.

  Args:
    result: the file of results that they belong to.
    setting: its name.
    languages: by language.
  """
  path = path_for(result, setting)
  content = dict(load(result, setting)) | dict(languages)
  arrays: dict[str, Any] = {
      f'{name}/{direction}/{field}': value.astype(np.int32)
      for name, one in content.items()
      for direction, queries in one.items()
      for field, value in (('rank', queries.rank_Q), ('unit', queries.unit_Q))}
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  with draft.open('wb') as file:
    np.savez_compressed(file, **arrays)
  os.replace(draft, path)


def load(result: pathlib.Path,
         setting: str) -> dict[str, dict[str, statistics.Queries]]:
  """Returns {language: queries}; {} where none are kept.

  Raises:
    UserError: the file is broken.
  """
  path = path_for(result, setting)
  if not path.exists():
    return {}
  try:
    with np.load(path, allow_pickle=False) as arrays:
      names = {name.split('/')[0] for name in arrays}
      return {
          name: {direction: statistics.Queries(
              arrays[f'{name}/{direction}/rank'],
              arrays[f'{name}/{direction}/unit'])
                 for direction in protocols.DIRECTIONS}
          for name in sorted(names)}
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    raise errors.UserError(
        f'{path}: not the ranks of an evaluation ({error}); delete it and '
        'evaluate again') from error
