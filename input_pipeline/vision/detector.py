"""Regions that a detector finds: its boxes, and features pooled inside them.

CenterNet (MobileNetV3, 80 classes of COCO) says where things are, and the grid
of EfficientNet-Lite0 over the same picture says what they look like.
Letters: B pictures, S the tile's side, H and W the height and width of a grid,
C class, R regions, F region feature.
"""

from collections.abc import Sequence
import functools
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from input_pipeline import regions
from input_pipeline import sources
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures
from input_pipeline.vision import tfjs_graph
from input_pipeline.vision import tiles
from input_pipeline.weights import torch_file

PICTURE_SIZE = 512
NUM_CLASSES = 81  # COCO's 80 and 0, the background.
# Boxes at most and at least, as in bottom-up attention (10 to 100, there with
# a stronger detector); between them the threshold decides.
MAX_BOXES, MIN_BOXES = 35, 9
MIN_SCORE = 0.1
# Input pixels in a step of CenterNet's heat map.
_STRIDE = 4
_INPUT, _HEAT, _SIDES = 'tower_0/images', 'tower_0/keypoints', 'tower_0/wh'


class Boxes(NamedTuple):
  """What the detector found, best first.

  Attributes:
    xyxy_BR4: float32, pixels of the tile.
    scores_BR: float32, in [0, 1].
    classes_BR: int32, of COCO from 0.
  """
  xyxy_BR4: jax.Array
  scores_BR: jax.Array
  classes_BR: jax.Array


def find_boxes(graph: tfjs_graph.Graph, weights: Any,
               pictures_BSS3: jax.Array) -> Boxes:
  """Returns the detector's `MAX_BOXES` best boxes of each picture.

  A box is a peak of the heat map: a place that is the highest of the 3×3
  around it, in its class. Source: Zhou et al. 2019, "Objects as Points", 4.

  Args:
    graph: CenterNet.
    weights: its weights.
    pictures_BSS3: uint8 [B, 512, 512, 3].
  """
  heat_BHWC, sides_BHW4 = tfjs_graph.run(
      graph, weights, {_INPUT: pictures_BSS3.astype(jnp.float32)},
      [_HEAT, _SIDES])
  highest_BHWC = lax.reduce_window(
      heat_BHWC, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
  peaks_BHWC = jnp.where(heat_BHWC == highest_BHWC, heat_BHWC, 0)
  batch, _, width, classes = peaks_BHWC.shape
  scores_BR, place_BR = lax.top_k(peaks_BHWC.reshape(batch, -1), MAX_BOXES)
  cell_BR, classes_BR = jnp.divmod(place_BR, classes)
  y_BR, x_BR = jnp.divmod(cell_BR, width)
  # Distances from the peak to the left, top, right and bottom.
  sides_BR4 = jax.vmap(lambda sides, cells: sides[cells])(
      sides_BHW4.reshape(batch, -1, 4), cell_BR)
  centre_BR4 = _STRIDE * jnp.stack([x_BR, y_BR, x_BR, y_BR], -1)
  sign_4 = jnp.array([-1., -1., 1., 1.])
  xyxy_BR4 = centre_BR4 + sign_4[None, None] * sides_BR4
  return Boxes(jnp.clip(xyxy_BR4, 0, PICTURE_SIZE), scores_BR,
               classes_BR.astype(jnp.int32))


def pool(grid_BHWF: jax.Array, xyxy_BR4: jax.Array) -> jax.Array:
  """Returns float32 [B, R, F]: the grid's mean inside each box.

  A cell counts by the share of it that the box covers; a box without area
  takes the cells it touches.

  Args:
    grid_BHWF: over the whole tile.
    xyxy_BR4: boxes as shares of the tile, in [0, 1].
  """

  def cover(low_BR, high_BR, count):
    # Thinner boxes would cover nothing.
    high_BR = jnp.maximum(high_BR, low_BR + 1e-3)
    edge_N = jnp.arange(count) / count
    covered = (jnp.minimum(high_BR[..., None], edge_N[None, None] + 1 / count)
               - jnp.maximum(low_BR[..., None], edge_N[None, None]))
    covered = jnp.clip(covered, 0)
    return covered / jnp.maximum(covered.sum(-1, keepdims=True), 1e-9)

  x1, y1, x2, y2 = jnp.moveaxis(xyxy_BR4, -1, 0)
  return jnp.einsum('BRH,BRW,BHWF->BRF', cover(y1, y2, grid_BHWF.shape[1]),
                    cover(x1, x2, grid_BHWF.shape[2]), grid_BHWF)


class DetectorExtractor:
  """CenterNet's boxes with EfficientNet's features, the whole picture first."""
  feature_dim = efficientnet.FEATURE_DIM

  def __init__(self, model: str | os.PathLike | None = None, *,
               batch_size: int = 8):
    """Loads both networks; the first call of `extract` compiles.

    Args:
      model: CenterNet's JSON file; by default that of the package.
      batch_size: pictures in one call; fewer are padded. At 512×512 pixels a
        batch of 8 takes 1.5 GB.

    Raises:
      UserError: a file is missing or not what it should be.
    """
    path = pathlib.Path(model) if model else _find_model()
    backbone = regions.find_weights()
    graph = tfjs_graph.load(path)
    self._weights = jax.device_put(
        (graph.weights, efficientnet.fold_weights(torch_file.load(backbone))))
    self._extract = jax.jit(functools.partial(_extract, graph))
    self._batch_size = batch_size
    self.manifest: dict[str, Any] = {
        'name': 'detector',
        'network': 'efficientnet-lite0', 'layer': 'head, before pooling',
        'sha256': _digest(backbone),
        'detector': 'centernet (MobileNetV3, COCO)',
        'detector_sha256': _digest(path) + _digest(path.with_suffix('.bin')),
        'min_score': MIN_SCORE, 'min_boxes': MIN_BOXES, 'max_boxes': MAX_BOXES,
        'picture_size': PICTURE_SIZE, 'resampling': 'bicubic',
        'background': 'white', 'crop_to_content': True,
        'num_regions': 1 + MAX_BOXES,
        'feature_dim': efficientnet.FEATURE_DIM, 'num_classes': NUM_CLASSES}

  def cut(self, picture: pictures.Picture) -> tiles.Tile:
    """Returns the picture's tile, as the networks take it."""
    return tiles.cut_tile(picture, PICTURE_SIZE, crop_to_content=True)

  def extract(self, images: Sequence[tiles.Tile | pictures.Source],
              ) -> list[regions.RegionSet]:
    """Returns the regions of each picture, in order; see `regions`."""
    cut = [image if isinstance(image, tiles.Tile)
           else self.cut(pictures.read(image)) for image in images]
    return [found for start in range(0, len(cut), self._batch_size)
            for found in self._extract_batch(
                cut[start:start + self._batch_size])]

  def _extract_batch(self, batch: Sequence[tiles.Tile],
                     ) -> list[regions.RegionSet]:
    pictures_BSS3 = np.zeros(
        (self._batch_size, PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8)
    for row, tile in enumerate(batch):
      pictures_BSS3[row] = tile.pixels_SS3
    boxes, features_BRF = jax.device_get(
        self._extract(self._weights, pictures_BSS3))
    return [_assemble(tile, Boxes(*(array[row] for array in boxes)),
                      features_BRF[row]) for row, tile in enumerate(batch)]


def _extract(graph: tfjs_graph.Graph, weights: Any,
             pictures_BSS3: jax.Array) -> tuple[Boxes, jax.Array]:
  """Returns boxes, and float16 features of the whole picture and of them."""
  centernet, backbone = weights
  boxes = find_boxes(graph, centernet, pictures_BSS3)
  grid_BHWF = efficientnet.extract_grid(backbone, pictures_BSS3)
  features_BRF = jnp.concatenate([
      grid_BHWF.mean((1, 2))[:, None],
      pool(grid_BHWF, boxes.xyxy_BR4 / PICTURE_SIZE)], axis=1)
  return boxes, features_BRF.astype(jnp.float16)


def _assemble(tile: tiles.Tile, boxes: Boxes,
              features_RF: np.ndarray) -> regions.RegionSet:
  """Returns one picture's regions: those that are sure and inside it."""
  left, top, right, _ = tile.square
  scale = (right - left) / PICTURE_SIZE
  limits_4 = np.array([tile.width, tile.height] * 2, np.float32)
  boxes_R4 = np.clip(
      boxes.xyxy_BR4 * scale + np.array([left, top] * 2), 0, limits_4)
  has_area_R = (boxes_R4[:, 2:] > boxes_R4[:, :2]).all(1)
  rank_R = np.cumsum(has_area_R)
  kept_R = has_area_R & ((boxes.scores_BR >= MIN_SCORE)
                         | (rank_R <= MIN_BOXES))
  whole_4 = np.array([0, 0, tile.width, tile.height], np.float32)
  return regions.RegionSet(
      features_RF[np.concatenate([[True], kept_R])],
      np.concatenate([whole_4[None], boxes_R4[kept_R]]).astype(np.float32),
      np.concatenate([[0], boxes.classes_BR[kept_R] + 1]).astype(np.int32),
      tile.height, tile.width)


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _find_model() -> pathlib.Path:
  """Returns CenterNet's description in the package's folder."""
  (found,) = sources.fetch('centernet').rglob('centernet.json')
  return found
