"""The vectors of a collection: in memory, in the workdir, and exported.

Letters: I pictures, E shared space of the dual encoder.
"""

import dataclasses
import os
import pathlib
import zipfile

from absl import logging
import numpy as np

from input_pipeline import errors
from m3p_jax import output


@dataclasses.dataclass(frozen=True)
class Index:
  """What a search needs of a collection, small enough to keep in a file.

  Attributes:
    image_ids: the pictures' names.
    captions: the pictures' first English captions; '' where there is none.
    thumbnails: the pictures' small copies; '' where there is none.
    originals: files that they were read from; '' where that is not known.
    vectors_IE: float32, unit length.
  """
  image_ids: list[str]
  captions: list[str]
  thumbnails: list[str]
  originals: list[str]
  vectors_IE: np.ndarray

  def file(self, number: int) -> str:
    """Returns the file of a picture; '' where it is not there any more."""
    path = self.originals[number]
    return path if path and os.path.isfile(path) else ''


def read(path: pathlib.Path, key: str) -> Index | None:
  """Returns the index in the file, None where it has not this key."""
  found = read_arrays(path, key)
  if found is None:
    return None
  try:
    return Index(
        found['image_ids'].tolist(), found['captions'].tolist(),
        found['thumbnails'].tolist(), found['originals'].tolist(),
        found['vectors_IE'])
  except KeyError as error:
    logging.warning('%s cannot be read, made again: %s', path, error)
    return None


def write(path: pathlib.Path, key: str, made: Index) -> None:
  """Stores an index; a workdir that cannot be written to is only told of."""
  write_arrays(path, key, dict(
      vectors_IE=made.vectors_IE,
      image_ids=np.array(made.image_ids, np.str_),
      captions=np.array(made.captions, np.str_),
      thumbnails=np.array(made.thumbnails, np.str_),
      originals=np.array(made.originals, np.str_)))


def warn_unless_kept(path: pathlib.Path | None) -> None:
  """Tells, before vectors are made, that they will be made again next time."""
  try:
    if path:
      output.check_writable(path.parent, 'the index')
  except errors.UserError as error:
    logging.warning('%s; every start computes the vectors anew', error)


def read_arrays(path: pathlib.Path, key: str) -> dict[str, np.ndarray] | None:
  """Returns the arrays of a file, None where it has not this key."""
  if not path.exists():
    return None
  try:
    with np.load(path) as stored:
      if str(stored['key']) != key:
        return None
      return {name: stored[name] for name in stored.files}
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    logging.warning('%s cannot be read, made again: %s', path, error)
    return None


def write_arrays(path: pathlib.Path, key: str,
                 arrays: dict[str, np.ndarray]) -> None:
  """Stores arrays under a key, whole or not at all."""
  draft = path.with_name(f'.{path.stem}.{os.getpid()}.npz')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(draft, allow_pickle=False, key=np.array(key), **arrays)
    os.replace(draft, path)
  except OSError as error:
    # A workdir that cannot be written to can still be searched.
    logging.warning('%s: not stored: %s', path, error)
