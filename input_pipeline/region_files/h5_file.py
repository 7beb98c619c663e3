"""HDF5 files, read slice by slice, without what leads out of the file."""

import math
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import contract
from input_pipeline.region_files import optional

# Chunks of several images are unpacked once.
_CACHE_BYTES = 2**26


def open_file(path: Any) -> Any:
  """Returns the h5py file, open for reading."""
  h5py = optional.load('h5py')
  # Nobody writes, and not every file system can lock.
  return h5py.File(path, 'r', rdcc_nbytes=_CACHE_BYTES, locking=False)


def create(path: Any) -> Any:
  """Returns a new h5py file, open for writing."""
  return optional.load('h5py').File(path, 'w')


def child(group: Any, name: str) -> Any:
  """Returns a member of a group.

  Raises:
    UserError: it is not there, or a link: those may name any other file.
  """
  h5py = optional.load('h5py')
  link = group.get(name, getlink=True)
  if link is None:
    raise errors.UserError(f'no {name!r} in {group.name}')
  if not isinstance(link, h5py.HardLink):
    raise errors.UserError(
        f'{group.name}/{name} is a {type(link).__name__}; links are not '
        'followed')
  return group[name]


def dataset(group: Any, name: str) -> Any:
  """Returns a dataset of a group, of numbers or strings.

  Raises:
    UserError: it is none, or its data lie in other files.
  """
  h5py = optional.load('h5py')
  found = child(group, name)
  if not isinstance(found, h5py.Dataset):
    raise errors.UserError(f'{found.name} is no dataset')
  if found.external or found.is_virtual:
    raise errors.UserError(
        f'the data of {found.name} lie in other files; they are not read')
  is_text = h5py.check_string_dtype(found.dtype) is not None
  if found.dtype.kind not in 'biuf' and not is_text:
    raise errors.UserError(f'{found.name} holds {found.dtype}')
  return found


def read(found: Any, row: int | None = None) -> np.ndarray:
  """Returns a dataset, or one row of it.

  Raises:
    RowError: it would be larger than any image's regions.
  """
  shape = found.shape or ()
  size = math.prod(shape if row is None else shape[1:]) * found.dtype.itemsize
  if size > contract.MAX_BYTES:
    raise contract.RowError(
        'too large', f'{found.name} has {size:,} bytes for an image')
  return found[()] if row is None else found[row]


def string_type() -> Any:
  """Returns the type of byte strings of any length."""
  return optional.load('h5py').string_dtype('utf-8')
