"""Datasets with regions out of files, and back out into files."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from input_pipeline import builder
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import export
from input_pipeline import prepare
from input_pipeline import shards
from input_pipeline import store
from input_pipeline.datasets import sbu
from m3p_jax import startup
from tests import region_writers as writers

IMAGES = [writers.image(name, seed=n, feature_dim=4)
          for n, name in enumerate(['12', '7', '99'])]


def _prepare(tmp_path, rows, name, path, **options):
  (tmp_path / 'raw').mkdir(exist_ok=True)
  (tmp_path / 'raw' / 'captions.jsonl').write_text('\n'.join(
      json.dumps({'image': image, 'split': split, 'captions': captions})
      for image, split, captions in rows))
  return prepare.prepare(
      'captions', str(tmp_path / 'data'), raw_dir=str(tmp_path / 'raw'),
      features=str(path), features_format=name, **options)


def _records(data_dir, dataset):
  made = store.open_builder(data_dir, dataset)
  return {record['image_id'].decode(): record | {'split': split}
          for split in made.info.splits for record in made.as_dataset(
              split=split, read_config=tfds.ReadConfig(try_autocache=False)
          ).as_numpy_iterator()}


def test_captions_meet_their_regions(tmp_path):
  rows = [('a/COCO_val2014_000000000012.jpg', 'train', {'en': ['A cat.']}),
          ('7.jpg', 'test', {'de': ['Ein Hund.']}),
          ('nowhere.jpg', 'train', {'en': ['A ghost.']})]
  path = writers.lxmert_tsv(tmp_path, IMAGES)
  with pytest.raises(errors.UserError, match="1 of 3 .*'no features': 1"):
    _prepare(tmp_path, rows, 'lxmert_tsv', path)
  folder = _prepare(tmp_path, rows, 'lxmert_tsv', path, max_bad=0.5)
  records = _records(tmp_path / 'data', 'captions')
  assert {name: record['split'] for name, record in records.items()} == {
      rows[0][0]: 'train', '7.jpg': 'test'}
  for name, image in ((rows[0][0], IMAGES[0]), ('7.jpg', IMAGES[1])):
    record = records[name]
    assert (record['height'], record['width']) == (image.height, image.width)
    np.testing.assert_array_equal(record['boxes'], image.boxes)
    np.testing.assert_array_equal(
        record['features'], image.features.astype(np.float16))
    np.testing.assert_array_equal(record['class_ids'], image.objects + 1)
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['skipped'] == {'no features': 1}
  assert manifest['feature_extractor']['feature_dim'] == 4
  features = manifest['features']
  assert features['without_captions'] == 1
  assert features['matched_by'] == {'number': 2}
  assert features['files'][0]['bytes'] == path.stat().st_size
  with pytest.raises(errors.UserError, match='nowhere.jpg.*no features'):
    _prepare(tmp_path, [('99.jpg', 'train', {'en': ['A dog.']}), *rows],
             'lxmert_tsv', path, strict=True)
  with pytest.raises(errors.UserError,
                     match="features without captions .*: 1, the first '99'"):
    _prepare(tmp_path, rows[:2], 'lxmert_tsv', path, strict=True)
  assert _records(tmp_path / 'data', 'captions').keys() == records.keys()


def test_who_found_whom_is_told(tmp_path, caplog):
  rows = [(f'{name}.jpg', 'test', {'en': [name]})
          for name in ('a/12', 'b/12', 'c/7', 'd/8')]
  folder = _prepare(tmp_path, rows, 'butd_tsv',
                    writers.butd_tsv(tmp_path, IMAGES), max_bad=1)
  assert list(_records(tmp_path / 'data', 'captions')) == ['c/7.jpg']
  (told,) = [text for text in caplog.messages if '--features=' in text]
  assert told.endswith(
      "regions of 1 of 4 images (1 by name without folder); 2 images "
      "('a/12.jpg' …) ambiguous; left over: 3 images ('a/12.jpg' …), 2 rows "
      "('12' …)")
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['skipped'] == {'ambiguous features': 2, 'no features': 1}
  assert manifest['features']['ambiguous'] == 2


def test_rows_of_one_name_must_be_equal(tmp_path):
  # As shards do that each count their images from 0; tables have lines twice.
  for name, images in (('a', IMAGES[:2]), ('b', [
      IMAGES[0], dataclasses.replace(IMAGES[2], name=IMAGES[1].name)])):
    (tmp_path / name).mkdir()
    (tmp_path / 'features').mkdir(exist_ok=True)
    writers.butd_tsv(tmp_path / name, images).rename(
        tmp_path / 'features' / f'{name}.tsv')
  (tmp_path / 'features' / '._a.tsv').write_bytes(b'hidden')
  rows = [(f'{name}.jpg', 'test', {'en': [name]}) for name in ('12', '7')]
  folder = _prepare(tmp_path, rows, 'butd_tsv', tmp_path / 'features',
                    max_bad=0.5)
  assert list(_records(tmp_path / 'data', 'captions')) == ['12.jpg']
  assert json.loads((folder / 'skipped.jsonl').read_text())['reason'] == (
      'other features of the same name')


def test_names_that_are_no_utf8_stay_apart(tmp_path):
  path = writers.butd_tsv(tmp_path, IMAGES)
  path.write_bytes(path.read_bytes().replace(b'12\t', b'caf\xe9\t', 1).replace(
      b'\n7\t', b'\ncaf\xe8\t').replace(b'\n99\t', b'\nc\t'))
  rows = [(f'{name}.jpg', 'test', {'en': [name]})
          for name in ('caf\ufffd', 'c')]
  with pytest.raises(errors.UserError, match="no features"):
    _prepare(tmp_path, rows, 'butd_tsv', path)


def test_the_picture_gives_the_size_that_a_format_lacks(tmp_path):
  (tmp_path / 'raw').mkdir()
  Image.new('RGB', (64, 48)).save(tmp_path / 'raw' / '12.png')
  folder = _prepare(tmp_path, [('12.png', 'test', {'en': ['A cat.']}),
                               ('7.png', 'test', {'en': ['A dog.']})],
                    'oscar_pt', writers.oscar_pt(tmp_path, IMAGES))
  records = _records(tmp_path / 'data', 'captions')
  assert (records['12.png']['height'], records['12.png']['width']) == (48, 64)
  np.testing.assert_allclose(records['12.png']['boxes'], IMAGES[0].boxes,
                             rtol=1e-5)
  assert (records['7.png']['height'], records['7.png']['width']) == (1, 1)
  assert copies.small(folder, '12.png') and not copies.small(folder, '7.png')


def test_streamed_items_and_other_processes_find_their_regions(tmp_path):
  (tmp_path / 'sbu.csv').write_text('caption\turl\na cat\tx\na dog\ty\n')
  images = [writers.image(name, seed=n) for n, name in enumerate('01')]
  path = writers.butd_tsv(tmp_path, images)
  folder = prepare.prepare(
      'sbu', str(tmp_path / 'data'), raw_dir=str(tmp_path), features=str(path),
      features_format='butd_tsv')
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['counts'] == {'train': 2}
  assert manifest['features']['matched_by'] == {'name': 2}
  # The prepared data lie among the files that they were made from.
  assert prepare.read_key(folder) == prepare.key_of(
      'sbu', tmp_path / 'data', raw_dir=str(tmp_path), features=str(path),
      features_format='butd_tsv')
  # As a worker of Beam makes a shard that another process has planned.
  options = builder.Options(
      raw_dir=str(tmp_path), features=str(path), features_format='butd_tsv',
      shards=tmp_path / 'shards')
  options.shards.mkdir()
  planner, worker = (sbu.Builder(options=options, data_dir=str(tmp_path / name))
                     for name in ('planner', 'worker'))
  (shard,) = shards.cut(planner.items(), planner.shard_items)
  worker.make_planned(planner.save_plan(shard))
  assert not shards.find_report(options.shards, shard).skipped


def test_files_of_one_detector_go_together(tmp_path):
  found = {}
  for detector in ('', 'vg-x101'):
    for name in ('butd_tsv', 'lxmert_tsv', 'm3p_h5'):
      (tmp_path / name).mkdir(exist_ok=True)
      path = getattr(writers, name)(tmp_path / name, [
          writers.image('1', seed=1, feature_dim=4)])
      place = tmp_path / f'{name} {detector}'
      place.mkdir()
      folder = _prepare(place, [('1', 'train', {'en': ['a']})], name, path,
                        detector=detector)
      found[name, detector] = startup.read_manifest(folder.parent, 'captions')
  def join(detector, *names):
    startup._common([found[name, detector] for name in names])
  join('vg-x101', 'butd_tsv', 'lxmert_tsv')
  with pytest.raises(errors.UserError, match='prepare them alike'):
    join('', 'butd_tsv', 'lxmert_tsv')
  with pytest.raises(errors.UserError, match='prepare them alike'):
    join('vg-x101', 'lxmert_tsv', 'm3p_h5')  # Its classes are not shifted.
  startup.check_inputs(*(found[name, 'vg-x101'][0] for name in (
      'butd_tsv', 'lxmert_tsv')), 'data', tmp_path)


def test_wrong_flags_are_named(tmp_path):
  path = writers.butd_tsv(tmp_path, IMAGES)
  rows = [('12', 'test', {'en': ['A cat.']})]
  for name, features, message in [
      ('bdut_tsv', path, "features_format 'bdut_tsv'; did you mean 'butd_tsv'"),
      ('', path, 'needs --features_format; there are: .*volta_lmdb'),
      ('butd_tsv', tmp_path / 'x', 'x does not exist'),
      ('butd_tsv', path.with_suffix('.TSV'),
       rf'TSV does not exist; there is .*{path.name}'),
      ('volta_lmdb', tmp_path, r'a folder without \*.lmdb for volta_lmdb')]:
    with pytest.raises(errors.UserError, match=message):
      _prepare(tmp_path, rows, name, features)
  with pytest.raises(errors.UserError, match='udhr has no pictures'):
    prepare.prepare('udhr', str(tmp_path), features=str(path),
                    features_format='butd_tsv')
  with pytest.raises(errors.UserError, match="none of the images.*'12'.*'cat'"):
    _prepare(tmp_path, [('cat', 'test', {'en': ['A cat.']})], 'butd_tsv', path)
  assert not (tmp_path / 'data' / 'captions').exists()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Returns a data folder with two images, in two languages and splits."""
  folder = tmp_path_factory.mktemp('export')
  rows = [('a/12.jpg', 'train', {'en': ['A cat.'], 'de': ['Eine Katze.']}),
          ('b/7', 'test', {'en': ['A dog.', 'A big dog.']})]
  _prepare(folder, rows, 'volta_h5', writers.volta_h5(folder, IMAGES))
  return folder / 'data'


@pytest.mark.parametrize('format_name', export.names())
def test_export_and_import_give_the_same_records(tmp_path, data, format_name):
  before = _records(data, 'captions')
  out = tmp_path / 'raw' / 'out'
  assert export.export(
      'captions', data, format_name=format_name, out=out) == 2
  (tmp_path / 'raw' / f'out{export.CAPTIONS}').rename(
      tmp_path / 'raw' / 'captions.jsonl')
  prepare.prepare(
      'captions', str(tmp_path / 'data'), raw_dir=str(tmp_path / 'raw'),
      features=str(out), features_format=format_name, strict=True)
  after = _records(tmp_path / 'data', 'captions')
  assert set(after) == set(before) == {'a/12.jpg', 'b/7'}
  for name, record in before.items():
    if format_name == 'butd_tsv':  # It has no classes.
      record['class_ids'] = np.zeros_like(record['class_ids'])
    for field, value in record.items():
      if field == 'captions':
        assert value['text'].tolist() == after[name][field]['text'].tolist()
      else:
        np.testing.assert_array_equal(value, after[name][field], field)


def test_export_replaces_nothing_unasked(tmp_path, data):
  out = tmp_path / 'out.tsv'
  out.write_text('mine')
  for options, message in [
      (dict(format_name='butd_tsv'), 'out.tsv exists; --overwrite'),
      (dict(format_name='mmf_npy'), "--format 'mmf_npy'.*butd_tsv")]:
    with pytest.raises(errors.UserError, match=message):
      export.export('captions', data, out=out, **options)
  assert out.read_text() == 'mine'
  export.export('captions', data, format_name='butd_tsv', out=out,
                overwrite=True)
  assert b'\t64\t48\t3\t' in out.read_bytes()
  with pytest.raises(errors.UserError, match="'coco' is not prepared"):
    export.export('coco', data, format_name='m3p_h5', out=tmp_path / 'b.h5')
  assert sorted(path.name for path in tmp_path.glob('*out*')) == [
      'out.tsv', 'out.tsv.captions.jsonl']
  assert not (tmp_path / 'b.h5').exists()
