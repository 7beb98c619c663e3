"""Names instead of captions: those of what a picture shows, and repeatable."""

import json
import shutil

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import prepare
from input_pipeline import sources
from input_pipeline import store
from input_pipeline.vision import class_names

# A photo of Tux Paint, and the name of its class.
_PHOTOS = {'animals/birds/penguin.png': 'penguin',
           'animals/mammals/equines/zebra.png': 'zebra',
           'food/fruit/strawberry.png': 'strawberry'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """Returns a data folder with `captions`, and `class_names` made of it."""
  if shutil.which('apt-get') is None:
    pytest.skip('the photos of Tux Paint come through apt')
  (stamps,) = sources.fetch('tuxpaint-stamps-default').rglob('stamps')
  folder = tmp_path_factory.mktemp('names')
  rows = []
  for number, name in enumerate((*_PHOTOS, 'food/fruit/lemon.png')):
    shutil.copy(stamps / name, folder / f'{number}.png')
    rows.append({'image': f'{number}.png', 'captions': {'en': ['nothing']},
                 'split': 'test' if number == 3 else 'train'})
  (folder / 'captions.jsonl').write_text(''.join(
      json.dumps(row) + '\n' for row in rows))
  data = folder / 'data'
  prepare.prepare('captions', str(data), raw_dir=str(folder), storage='int8')
  prepare.prepare('class_names', str(data), raw_dir=str(data / 'captions'))
  return data


def test_captions_name_what_is_seen_in_the_training_pictures(prepared):
  pictures, captions = store.read_image_text(prepared, 'class_names', 'train')
  source, _ = store.read_image_text(prepared, 'captions', 'train')
  assert pictures.image_ids == source.image_ids  # Not the test picture.
  np.testing.assert_array_equal(pictures.class_ids_NR, source.class_ids_NR)
  np.testing.assert_array_equal(pictures.boxes_NRG, source.boxes_NRG)
  np.testing.assert_allclose(
      pictures.features_NRF, source.features_NRF, rtol=2e-3)
  for number, name in enumerate(_PHOTOS.values()):
    row = pictures.image_ids.index(f'{number}.png')
    texts = [captions.texts[i] for i in np.flatnonzero(
        captions.picture_C == row)]
    assert len(texts) == 16
    assert sum(name in text for text in texts) > 12, texts
  manifest = json.loads((prepared / 'class_names/manifest.json').read_text())
  assert manifest['feature_extractor'] == json.loads(
      (prepared / 'captions/manifest.json').read_text())['feature_extractor']


def test_many_captions_tell_the_distribution(prepared):
  pictures, _ = store.read_image_text(prepared, 'captions', 'train')
  names = class_names.ClassNames({'network': 'efficientnet-lite0'})
  features_RF = pictures.features_NRF[0]
  share_C = names.distribution(features_RF)
  assert share_C.sum() == pytest.approx(1)
  captions = names.captions('x', features_RF, 4_000)
  assert captions == names.captions('x', features_RF, 4_000)
  assert captions[:50] != names.captions('y', features_RF, 50)
  for c in np.argsort(-share_C)[:3]:
    # One of four draws, at least.
    expected = 1 - (1 - share_C[c]) ** 4
    found = np.mean([names._names[c] in text.split(', ')
                     for text in captions])
    assert found == pytest.approx(expected, abs=.03)


def test_other_networks_features_have_no_names(prepared, tmp_path):
  with pytest.raises(errors.UserError, match="'lxmert' have no class names"):
    class_names.ClassNames({'name': 'lxmert'})
  with pytest.raises(errors.UserError, match="--features is 'detector'"):
    prepare.prepare('class_names', str(tmp_path), features='detector',
                    raw_dir=str(prepared / 'captions'))
  with pytest.raises(errors.UserError, match='folder of a prepared dataset'):
    prepare.prepare('class_names', str(tmp_path), raw_dir=str(tmp_path))
