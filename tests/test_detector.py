"""CenterNet in JAX against TensorFlow's own operations, and pooling in boxes.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.vision import detector
from input_pipeline.vision import tfjs_graph


@pytest.fixture(scope='module')
def extractor():
  return detector.DetectorExtractor(batch_size=2)


@pytest.fixture(scope='module')
def photos():
  """A dog and a horse: cut-out photographs of Tux Paint."""
  folder = sources.fetch('tuxpaint-stamps-default')
  return [next(iter(sorted(folder.rglob(f'mammals/**/{name}.png'))))
          for name in ('dog', 'horse')]


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


def test_the_graph_computes_what_tensorflow_does(extractor, photos):
  image = Image.open(photos[0]).convert('RGB').resize((512, 512))
  pictures_BSS3 = np.asarray(image)[None]
  graph = tfjs_graph.load(detector._find_model())
  found = jax.jit(lambda weights, x: tfjs_graph.run(
      graph, weights, {'tower_0/images': x.astype(jnp.float32)},
      ['tower_0/keypoints', 'tower_0/wh']))(graph.weights, pictures_BSS3)
  wanted = _run_in_tensorflow(graph, pictures_BSS3)
  assert found[0].shape == (1, 128, 128, 80)
  np.testing.assert_allclose(found[0], wanted[0], atol=2e-4)
  np.testing.assert_allclose(found[1], wanted[1], atol=2e-2)


def test_what_is_in_a_photograph_is_found(extractor, photos):
  # Class + 1, of the 80 of COCO: dog 17, horse 18.
  for photo, class_id in zip(photos, (17, 18), strict=True):
    (found,) = extractor.extract([photo])
    assert found.class_ids_R[0] == 0  # The whole picture.
    assert found.class_ids_R[1] == class_id
    x1, y1, x2, y2 = found.boxes_R4[1]
    assert (x2 - x1) * (y2 - y1) > 0.7 * found.width * found.height
    assert 1 + detector.MIN_BOXES <= len(found.boxes_R4) <= (
        1 + detector.MAX_BOXES)
    assert found.features_RF.shape == (len(found.boxes_R4), 1280)
    left, top, right, bottom = found.boxes_R4.T
    assert (left < right).all() and (right <= found.width).all()
    assert (top < bottom).all() and (bottom <= found.height).all()


def test_neighbours_and_padding_change_nothing(extractor, photos):
  for alone, together in zip(
      [found for photo in photos for found in extractor.extract([photo])],
      extractor.extract(photos), strict=True):
    np.testing.assert_array_equal(alone.class_ids_R, together.class_ids_R)
    np.testing.assert_allclose(
        alone.features_RF.astype(np.float32),
        together.features_RF.astype(np.float32), atol=1e-2)


def test_pooling_is_the_mean_of_the_cells_by_their_cover():
  grid_BHWF = jnp.arange(16.).reshape(1, 4, 4, 1)
  boxes_BR4 = jnp.array([[[0, 0, 1, 1], [0, 0, .25, .25], [.5, .5, 1, 1],
                          [0, 0, .375, .25], [.6, .1, .6, .1]]])
  found = detector.pool(grid_BHWF, boxes_BR4)[0, :, 0]
  np.testing.assert_allclose(
      found, [7.5, 0, (10 + 11 + 14 + 15) / 4, 1 / 3, 2], atol=1e-5)


def test_the_manifest_says_what_made_the_regions(extractor):
  manifest = json.loads(json.dumps(extractor.manifest))
  assert {'network', 'layer', 'sha256', 'detector_sha256', 'min_score',
          'picture_size'} <= manifest.keys()
  assert manifest['num_classes'] == 81


@pytest.mark.parametrize('damage', [
    lambda text: text[:1000], lambda text: '{}',
    lambda text: text.replace('"dtype":"float16"', '"dtype":"object"'),
    lambda text: text.replace('[3,3,3,16]', '[3,3,3,17]')])
def test_damaged_models_are_refused(damage, tmp_path):
  model = detector._find_model()
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
