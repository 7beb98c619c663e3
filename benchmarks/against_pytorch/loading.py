"""A torch DataLoader over VOLTA's h5 layout."""

from collections.abc import Iterator
import itertools
import pathlib

import h5py
import numpy as np
import torch
from torch.utils import data

from benchmarks import contest

_REGIONS, _FEATURE_DIM, _LENGTH = 100, 2048, 64


class Pictures(data.Dataset):
  """A picture's regions with a caption's ids; each worker opens the file."""

  def __init__(self, path: pathlib.Path, count: int):
    self._path, self._count, self._file = path, count, None
    rng = np.random.default_rng(0)
    self._captions = [rng.integers(4, 250_000, 12) for _ in range(count)]

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int):
    if self._file is None:
      self._file = h5py.File(self._path, 'r')
    group = self._file[str(index)]
    width, height = group['img_w'][()], group['img_h'][()]
    boxes_R4 = group['boxes'][()] / np.float32([width, height] * 2)
    area_R1 = np.prod(boxes_R4[:, 2:] - boxes_R4[:, :2], axis=1,
                      keepdims=True)
    caption = self._captions[index]
    ids_L = np.ones(_LENGTH, np.int64)
    ids_L[:len(caption)] = caption
    return (torch.from_numpy(group['features'][()]),
            torch.from_numpy(np.concatenate([boxes_R4, area_R1], axis=1)),
            torch.from_numpy(group['obj_id'][()]), torch.from_numpy(ids_L),
            len(caption))


def variants(folder: str, *, pictures: int, batch_size: int, batches: int,
             made_ahead: int) -> dict[str, contest.Run]:
  """Returns the loader; writes its file into the folder."""
  path = pathlib.Path(folder) / 'volta.h5'
  _write(path, pictures)
  loader = data.DataLoader(
      Pictures(path, pictures), batch_size=batch_size, shuffle=True,
      num_workers=2, persistent_workers=True, drop_last=True)
  iterator = itertools.chain.from_iterable(_epochs(loader))

  return {'torch DataLoader, 2 workers, h5': lambda: contest.timed(
      iterator, batches, made_ahead)}


def _epochs(loader) -> Iterator[Iterator]:
  while True:
    yield iter(loader)


def _write(path: pathlib.Path, count: int) -> None:
  rng = np.random.default_rng(0)
  bank = rng.gamma(1.0, size=(4 * _REGIONS, _FEATURE_DIM)).astype(np.float32)
  with h5py.File(path, 'w') as file:
    for number in range(count):
      group = file.create_group(str(number))
      start = number % (3 * _REGIONS)
      group['features'] = bank[start:start + _REGIONS]
      group['boxes'] = np.tile(np.float32([10, 20, 300, 400]), (_REGIONS, 1))
      group['obj_id'] = np.arange(_REGIONS)
      group['obj_conf'] = np.ones(_REGIONS, np.float32)
      group['img_w'], group['img_h'] = 640, 480
