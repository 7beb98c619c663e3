"""Regions are means of the grid, in the picture's own coordinates."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline import sources
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures
from input_pipeline.vision import tiles
from input_pipeline.weights import torch_file

_BATCH = 4


@pytest.fixture(scope='module')
def extractor():
  return regions.GridExtractor(batch_size=_BATCH)


def _noise(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
  """Returns soft blobs without white, so that nothing is cropped."""
  generator = np.random.default_rng(seed)
  small_HW3 = generator.integers(0, 230, (6, 6, 3), np.uint8)
  return np.asarray(Image.fromarray(small_HW3).resize((width, height)))


@pytest.fixture(scope='module')
def sets(extractor):
  return extractor.extract([_noise(seed) for seed in range(6)])


def test_shapes_and_types(sets):
  for found in sets:
    assert found.features_RF.shape == (10, 1280)
    assert found.features_RF.dtype == np.float16
    assert found.boxes_R4.shape == (10, 4)
    assert found.boxes_R4.dtype == np.float32
    assert found.class_ids_R.dtype == np.int32
    assert ((found.class_ids_R >= 1) & (found.class_ids_R <= 1000)).all()
    assert (found.height, found.width) == (96, 96)


def test_neighbours_and_padding_change_nothing(extractor, sets):
  # The last batch was padded, and each picture had others beside it.
  for seed in (1, 5):
    (alone,) = extractor.extract([_noise(seed)])
    # One rounding of float16: XLA may add in another order.
    np.testing.assert_allclose(
        alone.features_RF, sets[seed].features_RF, rtol=2e-3, atol=1e-3
    )
    np.testing.assert_array_equal(alone.class_ids_R, sets[seed].class_ids_R)


def test_order_is_kept_and_pictures_differ(sets):
  whole_BF = np.stack([found.features_RF[0] for found in sets])
  assert len(np.unique(whole_BF, axis=0)) == len(sets)


def test_compiles_once(extractor, sets):
  # JAX shares compiled programs between extractors, so other tests of the
  # process may have added theirs: only what is added here counts.
  before = extractor._extract._cache_size()
  extractor.extract([_noise(9, 50, 70)] * (_BATCH + 1))
  assert extractor._extract._cache_size() == before
  assert extractor.extract([]) == []


def test_regions_are_means_of_the_grid(extractor, sets):
  (path,) = sources.fetch('efficientnet-lite0').rglob('*.pth')
  params = efficientnet.fold_weights(torch_file.load(path))
  pixels_SS3 = extractor.prepare(_noise(0)).pixels_SS3
  (grid_HWF,) = jax.jit(efficientnet.extract_grid)(params, pixels_SS3[None])
  bounds = [(0, 3), (2, 5), (4, 7)]
  expected = [np.mean(grid_HWF, axis=(0, 1))] + [
      np.mean(grid_HWF[top:bottom, left:right], axis=(0, 1))
      for top, bottom in bounds
      for left, right in bounds
  ]
  np.testing.assert_allclose(
      sets[0].features_RF, np.stack(expected), rtol=2e-3, atol=1e-3
  )
  logits_BRC = efficientnet.classify(params, np.stack(expected)[None])
  np.testing.assert_array_equal(
      sets[0].class_ids_R, np.argmax(logits_BRC[0], axis=-1) + 1
  )


def test_a_change_in_one_corner_moves_that_cell_most(extractor):
  before_HW3 = _noise(0, 224, 224)
  after_HW3 = before_HW3.copy()
  after_HW3[150:, 150:] = _noise(7, 74, 74)
  before, after = extractor.extract([before_HW3, after_HW3])
  moved_R = np.abs(
      after.features_RF.astype(np.float32) - before.features_RF
  ).sum(axis=1)
  assert np.argmax(moved_R) == 9  # bottom right
  assert moved_R[1] < 0.2 * moved_R[9]  # top left


def test_boxes_tile_the_picture(sets):
  boxes_R4 = sets[0].boxes_R4
  np.testing.assert_array_equal(boxes_R4[0], [0, 0, 96, 96])
  bounds = np.array([[0, 3], [2, 5], [4, 7]]) * 96 / 7
  expected = [
      (left, top, right, bottom)
      for top, bottom in bounds
      for left, right in bounds
  ]
  np.testing.assert_allclose(boxes_R4[1:], expected, rtol=1e-6)


def test_boxes_are_clipped_to_the_picture(extractor):
  (found,) = extractor.extract([_noise(0, 100, 200)])
  boxes_R4 = found.boxes_R4
  assert (found.height, found.width) == (100, 200)
  assert (boxes_R4 >= 0).all()
  assert (boxes_R4 <= [200, 100, 200, 100]).all()
  # The square reaches from −50 to 150; its top cells end at 3/7 of 200.
  np.testing.assert_allclose(
      boxes_R4[1], [0, 0, 600 / 7, 600 / 7 - 50], rtol=1e-6
  )


def test_cells_beside_the_picture_are_background(extractor):
  (found,) = extractor.extract([_noise(0, 20, 400)])
  areas_R = np.prod(found.boxes_R4[:, 2:] - found.boxes_R4[:, :2], axis=1)
  np.testing.assert_array_equal(areas_R == 0, found.class_ids_R == 0)
  np.testing.assert_array_equal(np.nonzero(found.class_ids_R)[0], [0, 4, 5, 6])


def test_boxes_follow_the_crop(extractor):
  image_HW3 = np.full((300, 300, 3), 255, np.uint8)
  image_HW3[100:200, 50:150] = _noise(0, 100, 100)
  (found,) = extractor.extract([image_HW3])
  np.testing.assert_array_equal(found.boxes_R4[0], [0, 0, 300, 300])
  np.testing.assert_array_equal(found.boxes_R4[1, :2], [45, 95])
  np.testing.assert_array_equal(found.boxes_R4[9, 2:], [155, 205])


def test_takes_tiles_and_every_source(extractor, tmp_path):
  image = Image.fromarray(_noise(3))
  image.save(tmp_path / 'a.png')
  path = tmp_path / 'a.png'
  kinds = [image, path, path.read_bytes(), extractor.prepare(path)]
  assert isinstance(kinds[-1], tiles.Tile)
  first, *others = extractor.extract(kinds)
  for other in others:
    np.testing.assert_array_equal(other.features_RF, first.features_RF)


def test_bad_pictures_say_why(extractor):
  with pytest.raises(pictures.PictureError, match='too small'):
    extractor.extract([np.zeros((7, 7, 3), np.uint8)])


def test_wrong_weights_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError):
    regions.GridExtractor(tmp_path / 'none.pth')
  (tmp_path / 'bad.pth').write_bytes(b'hello')
  with pytest.raises(errors.UserError, match=r'bad\.pth'):
    regions.GridExtractor(tmp_path / 'bad.pth')


def test_manifest_is_json_and_names_the_weights(extractor):
  manifest = json.loads(json.dumps(extractor.manifest))
  assert manifest['network'] == 'efficientnet-lite0'
  assert len(manifest['sha256']) == 64
  assert manifest['num_classes'] == 1001
