"""Turns pictures into regions, by a grid or by a detector.

Letters: B pictures, S the tile's side, H and W the height and width of a grid,
R regions, F region feature, C class, P grid positions (H·W).
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import operator
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline import sources
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures
from input_pipeline.vision import tfjs_graph
from input_pipeline.weights import pickles

# Grids of one network each, by the name of the features.
GRIDS = {'grid': 'efficientnet-lite0', 'grid-lite2': 'efficientnet-lite2'}
EXTRACTORS = (*GRIDS, 'detector')

_CELLS = 3  # Of a side.
GRID_REGIONS = 1 + _CELLS**2
_ROOTS = ('grid-lite2',)  # Their features are square roots.
GRID_CLASSES = 1 + efficientnet.NUM_CLASSES  # 0 is background.

DETECTOR_SIDE = 512
DETECTOR_CLASSES = 1 + 80  # COCO's, and 0, the background.
# Boxes at most and at least, as in bottom-up attention (10 to 100, there with
# a stronger detector); between them the threshold decides.
MAX_BOXES, MIN_BOXES = 35, 9
MIN_SCORE = 0.1
# Input pixels in a step of CenterNet's heat map.
_STRIDE = 4
_INPUT, _HEAT, _SIDES = 'tower_0/images', 'tower_0/keypoints', 'tower_0/wh'


class _Extractor:
  """A network over tiles, a padded batch at a time.

  Attributes:
    manifest: what all records that one model reads must have in common.
    side: of a tile, in pixels.
  """
  feature_dim = efficientnet.FEATURE_DIM
  manifest: dict[str, Any]
  side: int

  def __init__(self, weights: Any, extract: Any, batch_size: int):
    self._weights = jax.device_put(weights)
    self._extract = jax.jit(extract)
    self._batch_size = batch_size

  def cut(self, picture: pictures.Picture) -> pictures.Tile:
    """Returns the picture's tile, as the network takes it."""
    return pictures.cut_tile(picture, self.side)

  def extract(self, images: Sequence[pictures.Tile | pictures.Source],
              ) -> list[regions.RegionSet]:
    """Returns the regions of each picture or tile, in order."""
    cut = [image if isinstance(image, pictures.Tile)
           else self.cut(pictures.read(image)) for image in images]
    found = []
    for start in range(0, len(cut), self._batch_size):
      batch = cut[start:start + self._batch_size]
      pictures_BSS3 = np.zeros(
          (self._batch_size, self.side, self.side, 3), np.uint8)
      for row, tile in enumerate(batch):
        pictures_BSS3[row] = tile.pixels_SS3
      outputs = jax.device_get(self._extract(self._weights, pictures_BSS3))
      found += [self._assemble(tile, *jax.tree.map(
          operator.itemgetter(row), outputs))
                for row, tile in enumerate(batch)]
    return found

  def _assemble(self, tile: pictures.Tile, *outputs: Any) -> regions.RegionSet:
    """Returns one picture's regions from its row of the network's output."""
    raise NotImplementedError


class GridExtractor(_Extractor):
  """EfficientNet's grid, pooled to the whole and to 3×3 cells.

  Region 0 is the whole picture, the others are the cells over its tile, row by
  row. A cell that lies in the white beside the picture has a box without area
  and the class of the background; the others have ImageNet's class + 1.
  """

  def __init__(self, name: str = 'grid', batch_size: int = 32):
    network = GRIDS[name]
    self.side = efficientnet.NETWORKS[network].picture_size
    super().__init__(
        load_network(network),
        functools.partial(_extract_grid, network=network,
                          is_root=name in _ROOTS), batch_size)
    self.manifest = {
        'name': name,
        'network': network,
        'sha256': _digest(network_path(network)),
        'picture_size': self.side,
        'resampling': 'bicubic',
        'background': 'white',
        'crop_to_content': True,
        'num_regions': GRID_REGIONS,
        'feature_dim': self.feature_dim,
        'num_classes': GRID_CLASSES,
    }
    if name in _ROOTS:
      self.manifest['power'] = 0.5

  def _assemble(self, tile: pictures.Tile, *outputs: Any) -> regions.RegionSet:
    features_RF, classes_R = outputs
    x, y, right, _ = tile.square
    step = (right - x) / efficientnet.NETWORKS[
        self.manifest['network']].grid_size
    cells = _find_cells(self.manifest['network'])
    boxes: list[pictures.Box] = [(0, 0, tile.width, tile.height)]
    boxes += [
        (x + left * step, y + top * step, x + right * step, y + bottom * step)
        for top, bottom in cells for left, right in cells]
    limits_4 = np.array([tile.width, tile.height] * 2, np.float32)
    boxes_R4 = np.clip(np.array(boxes, np.float32), 0, limits_4)
    is_seen_R = (boxes_R4[:, 2:] > boxes_R4[:, :2]).all(axis=1)
    return regions.RegionSet(
        features_RF, boxes_R4,
        np.where(is_seen_R, classes_R + 1, 0).astype(np.int32), tile.height,
        tile.width)


def _extract_grid(params: efficientnet.Params, pictures_BSS3: jax.Array, *,
                  network: str, is_root: bool) -> tuple[jax.Array, jax.Array]:
  """Returns float16 region features [B, 10, 1280], ImageNet classes [B, 10].

  `is_root`: the features' square roots. A few strong channels decide the
  direction of what ReLU6 gives; their roots found 1.2 more (mean recall on 242
  photographs, linear maps to fixed text vectors), 0.5 beside region_dropout.
  """
  grid_BHWF = efficientnet.extract_grid(params, pictures_BSS3, network)
  grid_BPF = grid_BHWF.reshape(grid_BHWF.shape[0], -1, grid_BHWF.shape[-1])
  features_BRF = jnp.einsum(
      'RP,BPF->BRF', _pooling_weights(network), grid_BPF)
  logits_BRC = efficientnet.classify(params, features_BRF)
  if is_root:
    features_BRF = jnp.sqrt(features_BRF)
  return features_BRF.astype(jnp.float16), jnp.argmax(logits_BRC, axis=-1)


def _find_cells(network: str) -> list[tuple[int, int]]:
  """Returns the rows (or columns) of the grid that each of 3×3 cells spans."""
  size = efficientnet.NETWORKS[network].grid_size
  return [(i * size // _CELLS, -(-(i + 1) * size // _CELLS))
          for i in range(_CELLS)]


def _pooling_weights(network: str) -> np.ndarray:
  """Returns float32 [10, P]: the grid positions that each region averages."""
  size = efficientnet.NETWORKS[network].grid_size
  cells = _find_cells(network)
  weights_RHW = np.zeros((GRID_REGIONS, size, size), np.float32)
  weights_RHW[0] = 1
  for i, (top, bottom) in enumerate(cells):
    for j, (left, right) in enumerate(cells):
      weights_RHW[1 + _CELLS * i + j, top:bottom, left:right] = 1
  weights_RP = weights_RHW.reshape(GRID_REGIONS, -1)
  return weights_RP / weights_RP.sum(axis=1, keepdims=True)


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


class DetectorExtractor(_Extractor):
  """CenterNet's boxes with EfficientNet's features, the whole picture first.

  CenterNet (MobileNetV3, 80 classes of COCO) says where things are, and the
  grid of EfficientNet-Lite0 over the same picture says what they look like.
  """
  side = DETECTOR_SIDE

  def __init__(self, batch_size: int = 8):
    """Args: at 512×512 pixels a `batch_size` of 8 takes 1.5 GB."""
    path = _find('centernet', 'centernet.json')
    backbone = network_path()
    graph = tfjs_graph.load(path)
    params = load_network()
    super().__init__((graph.weights, params),
                     functools.partial(_detect, graph), batch_size)
    self.manifest = {
        'name': 'detector',
        'network': 'efficientnet-lite0', 'layer': 'head, before pooling',
        'sha256': _digest(backbone),
        'detector': 'centernet (MobileNetV3, COCO)',
        'detector_sha256': _digest(path) + _digest(path.with_suffix('.bin')),
        'min_score': MIN_SCORE, 'min_boxes': MIN_BOXES, 'max_boxes': MAX_BOXES,
        'picture_size': self.side, 'resampling': 'bicubic',
        'background': 'white', 'crop_to_content': True,
        'num_regions': 1 + MAX_BOXES, 'feature_dim': self.feature_dim,
        'num_classes': DETECTOR_CLASSES}

  def _assemble(self, tile: pictures.Tile, *outputs: Any) -> regions.RegionSet:
    """Returns the regions that are sure and inside the picture."""
    boxes, features_RF = outputs
    left, top, right, _ = tile.square
    scale = (right - left) / self.side
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


def _detect(graph: tfjs_graph.Graph, weights: Any,
            pictures_BSS3: jax.Array) -> tuple[Boxes, jax.Array]:
  """Returns boxes, and float16 features of the whole picture and of them."""
  centernet, backbone = weights
  boxes = find_boxes(graph, centernet, pictures_BSS3)
  grid_BHWF = efficientnet.extract_grid(backbone, pictures_BSS3)
  features_BRF = jnp.concatenate([
      grid_BHWF.mean((1, 2))[:, None],
      pool(grid_BHWF, boxes.xyxy_BR4 / DETECTOR_SIDE)], axis=1)
  return boxes, features_BRF.astype(jnp.float16)


def find_boxes(graph: tfjs_graph.Graph, weights: Any,
               pictures_BSS3: jax.Array) -> Boxes:
  """Returns the `MAX_BOXES` best boxes that CenterNet finds in each picture.

  A box is a peak of the heat map: a place that is the highest of the 3×3
  around it, in its class. Source: Zhou et al. 2019, "Objects as Points", 4.
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
  return Boxes(jnp.clip(xyxy_BR4, 0, DETECTOR_SIDE), scores_BR,
               classes_BR.astype(jnp.int32))


def pool(grid_BHWF: jax.Array, xyxy_BR4: jax.Array) -> jax.Array:
  """Returns float32 [B, R, F]: the grid's mean inside each box.

  A cell counts by the share of it that the box covers; a box without area
  takes the cells it touches. Boxes are shares of the tile, in [0, 1].
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


def make_extractor(name: str) -> _Extractor:
  """Returns the extractor of a name in `EXTRACTORS`, fetched if need be."""
  errors.check_choice('--features', name, EXTRACTORS)
  if name == 'detector':
    return DetectorExtractor()
  return GridExtractor(name=name)


def features_of(manifest: Mapping[str, Any]) -> str:
  """Returns the name of the features of weights or data, by their manifest.

  For features that other tools made it is 'grid'.
  """
  name = (manifest.get('feature_extractor') or {}).get('name')
  return name if name in EXTRACTORS else 'grid'


def network_path(network: str = 'efficientnet-lite0') -> pathlib.Path:
  """Returns the file of a network of `efficientnet`, fetched if need be."""
  return _find(network, '*.pth')


def load_network(network: str = 'efficientnet-lite0') -> efficientnet.Params:
  """Returns the parameters of a network of `efficientnet`."""
  return efficientnet.fold_weights(
      pickles.load_torch(network_path(network)), network)


def _find(source: str, pattern: str) -> pathlib.Path:
  folder = sources.fetch(source)
  found = sorted(folder.rglob(pattern))
  if len(found) != 1:
    raise errors.UserError(f'{folder} holds {len(found)} {pattern}, not one')
  return found[0]


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
