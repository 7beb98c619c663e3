"""A tile shows the picture undistorted, and says where it lies in it."""

import numpy as np
from PIL import Image
import pytest

from input_pipeline.vision import pictures
from input_pipeline.vision import tiles

_WHITE, _RED = (255, 255, 255), (255, 0, 0)


def _cut(image, *, size=224, crop_to_content=False):
  return tiles.cut_tile(
      pictures.read(image), size, crop_to_content=crop_to_content
  )


@pytest.mark.parametrize(
    'width, height, square',
    [
        (200, 100, (0, -50, 200, 150)),
        (100, 200, (-50, 0, 150, 200)),
        (64, 64, (0, 0, 64, 64)),
    ],
)
def test_letterbox_is_centred_on_white(width, height, square):
  tile = _cut(Image.new('RGB', (width, height), _RED))
  assert tile.square == square
  is_red_SS = (tile.pixels_SS3 == _RED).all(axis=-1)
  is_white_SS = (tile.pixels_SS3 == _WHITE).all(axis=-1)
  assert (is_red_SS | is_white_SS).all()
  assert is_red_SS.mean() == min(width, height) / max(width, height)
  np.testing.assert_array_equal(is_red_SS, is_red_SS[::-1, ::-1])


def test_crop_leaves_out_the_empty_border():
  image = Image.new('RGB', (1000, 600), _WHITE)
  image.paste(_RED, (500, 200, 600, 300))
  tile = _cut(image, crop_to_content=True)
  assert tile.square == (495, 195, 605, 305)
  assert (tile.height, tile.width) == (600, 1000)
  share = (tile.pixels_SS3[..., 1] < 128).mean()
  assert share == pytest.approx((100 / 110) ** 2, rel=0.02)


def test_crop_changes_nothing_where_nothing_is_empty():
  noise_HW3 = np.random.default_rng(0).integers(0, 200, (80, 60, 3), np.uint8)
  whole, cropped = (_cut(noise_HW3, crop_to_content=c) for c in (False, True))
  assert whole.square == cropped.square
  np.testing.assert_array_equal(whole.pixels_SS3, cropped.pixels_SS3)


def test_crop_margin_stays_inside_the_picture():
  image = Image.new('RGB', (100, 100), _WHITE)
  image.paste(_RED, (0, 0, 80, 40))
  tile = _cut(image, crop_to_content=True)
  x1, y1, x2, y2 = tile.square
  assert (x1, x2) == (0, 84)
  # 44 rows high with its margin, so 20 rows of white above and below.
  assert y2 - y1 == 84 and y1 == pytest.approx(-20, abs=0.5)


@pytest.mark.parametrize('crop_to_content', [False, True])
def test_square_maps_pixels_back(crop_to_content):
  image = Image.new('RGB', (300, 200), _WHITE)
  image.paste((0, 0, 0), (100, 60, 200, 160))
  image.paste(_RED, (120, 80, 130, 90))
  tile = _cut(image, crop_to_content=crop_to_content)
  rows, columns = np.nonzero(tile.pixels_SS3[..., 0] > 200)
  inside = (tile.pixels_SS3[rows, columns, 1]) < 100
  x1, y1, x2, _ = tile.square
  scale = (x2 - x1) / 224
  x = x1 + (columns[inside].mean() + 0.5) * scale
  y = y1 + (rows[inside].mean() + 0.5) * scale
  assert (x, y) == pytest.approx((125, 85), abs=1)


def test_extreme_shapes_keep_a_line():
  for size in ((5000, 8), (8, 5000)):
    tile = _cut(Image.new('RGB', size, _RED), crop_to_content=True)
    assert tile.pixels_SS3.shape == (224, 224, 3)
    assert ((tile.pixels_SS3 == _RED).all(axis=-1)).sum() == 224
