"""Regions of pictures: the networks compute what others' code does with the
same weights, find what is in photographs, and boxes lie where they should.
"""

import json
import pathlib
import shutil

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.vision import class_names
from input_pipeline.vision import efficientnet
from input_pipeline.vision import extractors
from input_pipeline.vision import pictures
from input_pipeline.vision import tfjs_graph
from input_pipeline.weights import pickles

# Photos of Tux Paint whose ImageNet class nobody would doubt.
_PHOTOS = {
    'animals/birds/penguin.png': 145, 'animals/birds/pink_flamingo.png': 130,
    'animals/mammals/aquatic/sea_lion.png': 150,
    'animals/mammals/cats/tiger.png': 292,
    'animals/mammals/elephant.png': 386,
    'animals/mammals/equines/zebra.png': 340,
    'animals/marsupials/koala.png': 105, 'food/fruit/banana.png': 954,
    'food/fruit/lemon.png': 951, 'food/fruit/pineapple.png': 953,
    'food/fruit/sliced_orange.png': 950, 'food/fruit/strawberry.png': 949,
    'food/vegetables/broccoli.png': 937,
    'food/vegetables/yellowpepper.png': 945}

@pytest.fixture(scope='module')
def grid():
  return extractors.GridExtractor(batch_size=4)


@pytest.fixture(scope='module')
def larger():
  return extractors.GridExtractor('grid-lite2', batch_size=4)


@pytest.fixture(scope='module')
def detector():
  return extractors.DetectorExtractor(batch_size=2)


@pytest.fixture(scope='module')
def state():
  return pickles.load_torch(extractors._find('efficientnet-lite0', '*.pth'))


@pytest.fixture(scope='module')
def stamps():
  """Returns the folder of Tux Paint's photographs, cut out."""
  if shutil.which('apt-get') is None:
    pytest.skip('the photos of Tux Paint come through apt')
  (folder,) = sources.fetch('tuxpaint-stamps-default').rglob('stamps')
  return folder


@pytest.fixture(scope='module')
def animals(stamps):
  return [next(iter(sorted(stamps.rglob(f'mammals/**/{name}.png'))))
          for name in ('dog', 'horse')]


def _noise(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
  """Returns soft blobs without white, so that nothing is cropped."""
  generator = np.random.default_rng(seed)
  small_HW3 = generator.integers(0, 230, (6, 6, 3), np.uint8)
  return np.asarray(Image.fromarray(small_HW3).resize((width, height)))


@pytest.fixture(scope='module')
def sets(grid):
  return grid.extract([_noise(seed) for seed in range(6)])


def test_shapes_types_and_order(sets):
  for found in sets:
    assert found.features_RF.shape == (10, 1280)
    assert found.features_RF.dtype == np.float16
    assert found.boxes_R4.dtype == np.float32
    assert found.class_ids_R.dtype == np.int32
    assert ((found.class_ids_R >= 1) & (found.class_ids_R <= 1000)).all()
    assert (found.height, found.width) == (96, 96)
  whole_BF = np.stack([found.features_RF[0] for found in sets])
  assert len(np.unique(whole_BF, axis=0)) == len(sets)


def test_neighbours_and_padding_change_nothing(grid, sets):
  # The last batch was padded, and each picture had others beside it.
  # JAX shares compiled programs between extractors, so other tests of the
  # process may have added theirs: only what is added here counts.
  before = grid._extract._cache_size()
  for seed in (1, 5):
    (alone,) = grid.extract([_noise(seed)])
    # One rounding of float16: XLA may add in another order.
    np.testing.assert_allclose(
        alone.features_RF, sets[seed].features_RF, rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(alone.class_ids_R, sets[seed].class_ids_R)
  assert grid._extract._cache_size() == before
  assert grid.extract([]) == []


def test_regions_are_means_of_the_grid(grid, sets, state):
  params = efficientnet.fold_weights(state)
  pixels_SS3 = grid.cut(pictures.read(_noise(0))).pixels_SS3
  (grid_HWF,) = jax.jit(efficientnet.extract_grid)(params, pixels_SS3[None])
  bounds = [slice(0, 3), slice(2, 5), slice(4, 7)]
  expected = [np.mean(grid_HWF, axis=(0, 1))] + [
      np.mean(grid_HWF[rows, columns], axis=(0, 1))
      for rows in bounds for columns in bounds]
  np.testing.assert_allclose(
      sets[0].features_RF, np.stack(expected), rtol=2e-3, atol=1e-3)
  logits_BRC = efficientnet.classify(params, np.stack(expected)[None])
  np.testing.assert_array_equal(
      sets[0].class_ids_R, np.argmax(logits_BRC[0], axis=-1) + 1)


def test_the_larger_network_gives_roots_of_means_of_its_grid(larger, stamps):
  (path,) = [name for name in _PHOTOS if name.endswith('strawberry.png')]
  tile = larger.cut(pictures.read(stamps / path))
  assert tile.pixels_SS3.shape == (260, 260, 3)
  params = extractors.load_network('efficientnet-lite2')
  (grid_HWF,) = jax.jit(
      efficientnet.extract_grid, static_argnames='network')(
          params, tile.pixels_SS3[None], network='efficientnet-lite2')
  assert grid_HWF.shape == (9, 9, 1280)
  means = [np.mean(grid_HWF, axis=(0, 1))] + [
      np.mean(grid_HWF[i:i + 3, j:j + 3], axis=(0, 1))
      for i in (0, 3, 6) for j in (0, 3, 6)]
  (found,) = larger.extract([tile])
  np.testing.assert_allclose(
      found.features_RF.astype(np.float32) ** 2, np.stack(means), rtol=4e-3,
      atol=1e-3)
  edges = np.linspace(*tile.square[::2], 4)
  np.testing.assert_allclose(
      found.boxes_R4[5], [edges[1], tile.square[1] + edges[1] - edges[0],
                          edges[2], tile.square[1] + edges[2] - edges[0]],
      rtol=1e-5)


@pytest.mark.parametrize('name', ['grid', 'grid-lite2'])
def test_class_names_are_read_from_either_networks_features(
    grid, larger, stamps, name):
  extractor = {'grid': grid, 'grid-lite2': larger}[name]
  seen = class_names.ClassNames(extractor.manifest)
  found = extractor.extract([stamps / one for one in _PHOTOS])
  shares_PC = np.stack([seen.distribution(one.features_RF) for one in found])
  # A region's arg max is the network's own, of the un-rooted mean.
  assert np.mean(shares_PC.argmax(1) == list(_PHOTOS.values())) > 0.9
  assert shares_PC.max(1).mean() > 0.3


def test_boxes_tile_the_picture(grid, sets):
  boxes_R4 = sets[0].boxes_R4
  np.testing.assert_array_equal(boxes_R4[0], [0, 0, 96, 96])
  bounds = np.array([[0, 3], [2, 5], [4, 7]]) * 96 / 7
  expected = [(left, top, right, bottom)
              for top, bottom in bounds for left, right in bounds]
  np.testing.assert_allclose(boxes_R4[1:], expected, rtol=1e-6)
  wide, thin = grid.extract([_noise(0, 100, 200), _noise(0, 20, 400)])
  assert (wide.height, wide.width) == (100, 200)
  assert (wide.boxes_R4 >= 0).all()
  assert (wide.boxes_R4 <= [200, 100, 200, 100]).all()
  # The square reaches from −50 to 150; its top cells end at 3/7 of 200.
  np.testing.assert_allclose(
      wide.boxes_R4[1], [0, 0, 600 / 7, 600 / 7 - 50], rtol=1e-6)
  # Cells beside the picture are background.
  areas_R = np.prod(thin.boxes_R4[:, 2:] - thin.boxes_R4[:, :2], axis=1)
  np.testing.assert_array_equal(areas_R == 0, thin.class_ids_R == 0)
  np.testing.assert_array_equal(np.nonzero(thin.class_ids_R)[0], [0, 4, 5, 6])


def test_boxes_follow_the_crop(grid):
  image_HW3 = np.full((300, 300, 3), 255, np.uint8)
  image_HW3[100:200, 50:150] = _noise(0, 100, 100)
  (found,) = grid.extract([image_HW3])
  np.testing.assert_array_equal(found.boxes_R4[0], [0, 0, 300, 300])
  np.testing.assert_array_equal(found.boxes_R4[1, :2], [45, 95])
  np.testing.assert_array_equal(found.boxes_R4[9, 2:], [155, 205])


def test_a_change_in_one_corner_moves_that_cell_most(grid):
  before_HW3 = _noise(0, 224, 224)
  after_HW3 = before_HW3.copy()
  after_HW3[150:, 150:] = _noise(7, 74, 74)
  found, changed = grid.extract([before_HW3, after_HW3])
  moved_R = np.abs(
      changed.features_RF.astype(np.float32) - found.features_RF).sum(axis=1)
  assert np.argmax(moved_R) == 9  # Bottom right.
  assert moved_R[1] < 0.2 * moved_R[9]  # Top left.


def test_takes_tiles_and_every_source(grid, tmp_path):
  path = tmp_path / 'a.png'
  Image.fromarray(_noise(3)).save(path)
  first, *others = grid.extract([
      Image.open(path), path, path.read_bytes(), grid.cut(pictures.read(path))])
  for other in others:
    np.testing.assert_array_equal(other.features_RF, first.features_RF)
  with pytest.raises(pictures.PictureError, match='too small'):
    grid.extract([np.zeros((7, 7, 3), np.uint8)])


@pytest.mark.parametrize('name', extractors.EXTRACTORS)
def test_manifests_say_what_made_the_regions(grid, larger, detector, name):
  manifest = json.loads(json.dumps(
      {'grid': grid, 'grid-lite2': larger, 'detector': detector}[
          name].manifest))
  assert manifest['name'] == name
  assert manifest['network'] == (
      'efficientnet-lite2' if name == 'grid-lite2' else 'efficientnet-lite0')
  # Older weights name what has no power.
  assert manifest.get('power', 1.0) == (0.5 if name == 'grid-lite2' else 1.0)
  assert len(manifest['sha256']) == 64
  assert manifest['num_classes'] == (81 if name == 'detector' else 1001)
  assert manifest['feature_dim'] == 1280 and manifest['picture_size']


def test_pictures_are_read_as_shipped_weights_have_seen_them(larger):
  manifest = json.loads((pathlib.Path(__file__).parents[1] / 'weights/photos'
                         / 'manifest.json').read_text())
  assert extractors.features_of(manifest) == 'grid-lite2'
  assert manifest['feature_extractor'] == larger.manifest
  for other in ({}, {'feature_extractor': None},
                {'feature_extractor': {'name': 'lxmert'}}):
    assert extractors.features_of(other) == 'grid'


@pytest.mark.parametrize('name', ['grid', 'grid-lite2'])
def test_known_photos_are_named(grid, larger, stamps, name):
  extractor = {'grid': grid, 'grid-lite2': larger}[name]
  found = extractor.extract([stamps / name for name in _PHOTOS])
  named = [regions.class_ids_R[0] - 1 for regions in found]
  expected = _PHOTOS | ({} if name == 'grid' else {
      'animals/mammals/elephant.png': 101})  # A tusker.
  assert dict(zip(_PHOTOS, named, strict=True)) == expected


@pytest.mark.parametrize(('size', 'kernel', 'stride'), [
    (7, 3, 1), (14, 5, 1), (14, 3, 2), (15, 5, 2)])
def test_depthwise_is_a_grouped_convolution(size, kernel, stride):
  keys = jax.random.split(jax.random.key(0), 3)
  x_BHWF = jax.random.normal(keys[0], (2, size, size, 6))
  weights_HWIO = jax.random.normal(keys[1], (kernel, kernel, 1, 6))
  bias_111O = jax.random.normal(keys[2], (1, 1, 1, 6))
  expected_BHWO = lax.conv_general_dilated(
      x_BHWF, weights_HWIO, (stride, stride), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=6)
  found_BHWO = jax.jit(
      efficientnet.convolve_depthwise, static_argnames='stride')(
          {'w': weights_HWIO, 'b': bias_111O}, x_BHWF, stride=stride)
  np.testing.assert_allclose(
      found_BHWO, expected_BHWO + bias_111O, rtol=1e-5, atol=1e-5)


def test_other_weights_are_refused(state):
  fewer = {k: v for k, v in state.items() if k != '_blocks.3._bn2.bias'}
  with pytest.raises(errors.UserError, match=r'_blocks\.3\._bn2\.bias'):
    efficientnet.fold_weights(fewer)
  with pytest.raises(errors.UserError, match='spare'):
    efficientnet.fold_weights({**state, 'spare': np.zeros(1)})


def _run_in_tensorflow(graph, pictures_BSS3):
  """Returns the model's two outputs, node by node in TensorFlow."""
  values = {**graph.weights, **graph.constants,
            'tower_0/images': pictures_BSS3.astype(np.float32)}
  attributes = None

  def convolve(x, w, *biases):
    padding = {'U0FNRQ==': 'SAME', 'VkFMSUQ=': 'VALID'}[
        attributes['padding']['s']]
    strides = [int(i) for i in attributes['strides']['list']['i']]
    is_depthwise = 'Depthwise' in node['op']
    fn = tf.nn.depthwise_conv2d if is_depthwise else tf.nn.conv2d
    x = fn(x, w, strides, padding)
    fused = attributes.get('fused_ops', {}).get('list', {}).get('s', [])
    if fused:
      x = x + biases[0]
    return tf.nn.relu(x) if len(fused) == 2 else x

  operations = {
      'Add': tf.add, 'Mul': tf.multiply, 'Relu': tf.nn.relu,
      'Relu6': tf.nn.relu6, 'Sigmoid': tf.sigmoid, 'Identity': tf.identity,
      'Mean': lambda x, axes: tf.reduce_mean(x, axes, keepdims=True),
      'ConcatV2': lambda *args: tf.concat(args[:-1], int(args[-1])),
      'ResizeBilinear': tf.compat.v1.image.resize_bilinear}
  for node in graph.nodes.values():
    if node['op'] in ('Const', 'Placeholder'):
      continue
    attributes = node.get('attr', {})
    fn = convolve if 'Conv2' in node['op'] else operations[node['op']]
    values[node['name']] = fn(*(values[name] for name in node['input']))
    if 'tower_0/keypoints' in values and 'tower_0/wh' in values:
      return [values['tower_0/keypoints'], values['tower_0/wh']]
  raise AssertionError('the outputs were not reached')


def test_the_graph_computes_what_tensorflow_does(animals):
  image = Image.open(animals[0]).convert('RGB').resize((512, 512))
  pictures_BSS3 = np.asarray(image)[None]
  graph = tfjs_graph.load(extractors._find('centernet', 'centernet.json'))
  found = jax.jit(lambda weights, x: tfjs_graph.run(
      graph, weights, {'tower_0/images': x.astype(jnp.float32)},
      ['tower_0/keypoints', 'tower_0/wh']))(graph.weights, pictures_BSS3)
  wanted = _run_in_tensorflow(graph, pictures_BSS3)
  assert found[0].shape == (1, 128, 128, 80)
  np.testing.assert_allclose(found[0], wanted[0], atol=2e-4)
  np.testing.assert_allclose(found[1], wanted[1], atol=2e-2)


def test_what_is_in_a_photograph_is_detected(detector, animals):
  together, (alone,) = detector.extract(animals), detector.extract(animals[:1])
  np.testing.assert_array_equal(alone.class_ids_R, together[0].class_ids_R)
  np.testing.assert_allclose(
      alone.features_RF.astype(np.float32),
      together[0].features_RF.astype(np.float32), atol=1e-2)
  # Class + 1, of the 80 of COCO: dog 17, horse 18.
  for found, class_id in zip(together, (17, 18), strict=True):
    assert found.class_ids_R[0] == 0  # The whole picture.
    assert found.class_ids_R[1] == class_id
    x1, y1, x2, y2 = found.boxes_R4[1]
    assert (x2 - x1) * (y2 - y1) > 0.7 * found.width * found.height
    assert 1 + extractors.MIN_BOXES <= len(found.boxes_R4) <= (
        1 + extractors.MAX_BOXES)
    assert found.features_RF.shape == (len(found.boxes_R4), 1280)
    left, top, right, bottom = found.boxes_R4.T
    assert (left < right).all() and (right <= found.width).all()
    assert (top < bottom).all() and (bottom <= found.height).all()


def test_pooling_is_the_mean_of_the_cells_by_their_cover():
  grid_BHWF = jnp.arange(16.).reshape(1, 4, 4, 1)
  boxes_BR4 = jnp.array([[[0, 0, 1, 1], [0, 0, .25, .25], [.5, .5, 1, 1],
                          [0, 0, .375, .25], [.6, .1, .6, .1]]])
  found = extractors.pool(grid_BHWF, boxes_BR4)[0, :, 0]
  np.testing.assert_allclose(
      found, [7.5, 0, (10 + 11 + 14 + 15) / 4, 1 / 3, 2], atol=1e-5)


@pytest.mark.parametrize('damage', [
    lambda text: text[:1000], lambda text: '{}',
    lambda text: text.replace('"dtype":"float16"', '"dtype":"object"'),
    lambda text: text.replace('[3,3,3,16]', '[3,3,3,17]')])
def test_damaged_models_are_refused(damage, tmp_path):
  model = extractors._find('centernet', 'centernet.json')
  path = tmp_path / 'model.json'
  text = damage(json.dumps(json.loads(model.read_text()),
                           separators=(',', ':')))
  assert text != model.read_text()
  path.write_text(text)
  (tmp_path / 'centernet.bin').write_bytes(
      model.with_suffix('.bin').read_bytes())
  with pytest.raises(errors.UserError, match='no graph model'):
    tfjs_graph.load(path)


def test_an_unknown_operation_is_named():
  graph = tfjs_graph.Graph(
      {'x': {'name': 'x', 'op': 'PyFunc', 'input': []}}, {}, {})
  with pytest.raises(errors.UserError, match="'PyFunc'; allowed: Add"):
    tfjs_graph.run(graph, {}, {}, ['x'])
