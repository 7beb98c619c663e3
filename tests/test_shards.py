"""Preparation by shards: killed and continued, in memory and from records."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

import input_pipeline
from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import prepare
from input_pipeline import records
from input_pipeline import shards
from input_pipeline import store
from input_pipeline import streamed
from input_pipeline.vision import extractors
from tests import toy

ROOT = pathlib.Path(__file__).parent.parent
_SHARD_ITEMS = 4
_PICTURES = 18  # 4 shards and a half.


class Extractor(toy.Extractor):
  """Counts the pictures; dies when told to."""
  pictures_seen = 0
  dies_after = None

  def extract(self, images):
    Extractor.pictures_seen += len(images)
    if Extractor.dies_after and Extractor.pictures_seen > Extractor.dies_after:
      os.kill(os.getpid(), signal.SIGKILL)
    return super().extract(images)


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', Extractor)
  monkeypatch.setattr(builder.ImageTextBuilder, 'shard_items', _SHARD_ITEMS)
  monkeypatch.setattr(Extractor, 'pictures_seen', 0)


@pytest.fixture
def raw(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  rows = []
  for i in range(_PICTURES):
    Image.new('RGB', (30 + i, 40), (5 + 10 * i,) * 3).save(folder / f'{i}.png')
    rows.append(json.dumps({
        'image': f'{i}.png', 'split': 'train' if i % 6 else 'test',
        'captions': {'en': [f'picture {i}.', 'grey'], 'de': [f'Bild {i}']}}))
  (folder / 'captions.jsonl').write_text('\n'.join(rows))
  return folder


def _prepare(raw_dir, data_dir, **options):
  return prepare.prepare(
      'captions', str(data_dir), raw_dir=str(raw_dir), **options)


def _contents(folder):
  """Returns file name → content, but of the manifest's and TFDS's stamps."""
  return {path.relative_to(folder): path.read_bytes()
          for path in folder.rglob('*') if path.suffix not in ('.json', '.npz')
          and path.is_file()}


def test_a_killed_run_goes_on_from_its_finished_shards(
    raw, tmp_path, small_shards):
  whole = _prepare(raw, tmp_path / 'whole')
  data = tmp_path / 'killed'
  died = subprocess.run(
      [sys.executable, '-c',
       'from tests import test_shards as t; '
       't.extractors.GridExtractor = t.Extractor; t.Extractor.dies_after = 10; '
       f't.builder.ImageTextBuilder.shard_items = {_SHARD_ITEMS}; '
       f't._prepare({str(raw)!r}, {str(data)!r})'],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert died.returncode == -signal.SIGKILL, died.stderr
  assert not (data / 'captions').exists()
  Extractor.pictures_seen = 0
  folder = _prepare(raw, data)
  # Two shards of four were finished, the third was not.
  assert Extractor.pictures_seen == _PICTURES - 2 * _SHARD_ITEMS
  assert _contents(folder) == _contents(whole)
  assert sorted(path.name for path in data.iterdir()) == [
      '.captions.lock', 'captions']


def test_other_options_begin_anew(raw, tmp_path, small_shards, monkeypatch):
  def fail(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(shards, 'assemble', fail)
    with pytest.raises(errors.UserError, match='No space left.*goes on'):
      _prepare(raw, tmp_path)
  assert Extractor.pictures_seen == _PICTURES
  _prepare(raw, tmp_path, storage='int8')
  assert Extractor.pictures_seen == 2 * _PICTURES


def test_no_room_on_the_disk_is_an_error_of_the_user(
    raw, tmp_path, small_shards):
  # A process may write no file longer than this: what a full disk does,
  # without a file system to mount.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
  try:
    with pytest.raises(errors.UserError,
                       match='cannot prepare captions in --data_dir'):
      _prepare(raw, tmp_path / 'data')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not (tmp_path / 'data' / 'captions').exists()
  assert not list((tmp_path / 'data').rglob('*draft-*'))


@pytest.mark.parametrize('storage', records.STORAGE)
def test_records_are_found_by_number(raw, tmp_path, small_shards, storage):
  _prepare(raw, tmp_path, storage=storage)
  pictures, captions = store.read_image_text(tmp_path, 'captions', 'train')
  made = store.open_builder(tmp_path, 'captions', 'train')
  index = store.open_index(made, 'train')
  fetch = streamed.picture_rows(
      ['captions'], [index], [records.kind_of(made.info.features)], parallel=3)
  assert len(index.paths) == 4
  np.testing.assert_array_equal(
      index.num_ids_C, np.diff(captions.ids.splits[captions.word_splits]))
  rows_B = np.array([40, 3, 0, 3, 22])
  found, shift_B, (batch,), _ = tf.function(fetch)(tf.constant(rows_B))
  for name, array in zip(
      batch._fields,
      (pictures.image_id_N, pictures.features_NRF, pictures.boxes_NRG,
       pictures.class_ids_NR, pictures.mask_NR), strict=True):
    np.testing.assert_array_equal(
        getattr(batch, name), array[captions.picture_C[rows_B]])
  for row, place in zip(rows_B, rows_B + shift_B.numpy(), strict=True):
    first, last = captions.word_splits[row:row + 2]
    np.testing.assert_array_equal(
        found.keys_W[found.word_splits[place]:found.word_splits[place + 1]],
        captions.keys_W[first:last])


def test_int8_is_within_half_a_step_of_float16():
  features_RF = np.random.default_rng(0).normal(
      size=(5, 64)).astype(np.float16) * np.array(
          [[0], [1e-4], [1], [100], [500]], np.float16)
  packed = records.pack_features(features_RF, 'int8')
  assert packed['features'].dtype == np.int8
  assert (np.abs(packed['features'][1:]).max(1) == 127).all()
  error_RF = np.abs(
      (packed['features'] * packed['scales'][:, np.newaxis]).astype(
          np.float16).astype(np.float32) - features_RF)
  step_R1 = np.abs(features_RF).max(1, keepdims=True).astype(np.float32) / 127
  # Half a step, and the rounding of float16.
  assert (error_RF <= step_R1 * .57 + 1e-7).all()


def test_an_index_that_does_not_fit_its_files_is_refused(
    raw, tmp_path, small_shards):
  (path,) = _prepare(raw, tmp_path).rglob('*-test.tfrecord-*')
  whole = index_lib.scan(path)
  assert whole.num_captions_N.tolist() == [3, 3, 3]
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(errors.UserError, match='cut off: the record at byte'):
    index_lib.scan(path)
  with pytest.raises(errors.UserError, match='Prepare the dataset again'):
    index_lib.load(path.parent / 'index-test.npz')


def test_streams_of_items_are_cut_as_they_come():
  # A text of every split in turn.
  items = (builder.TextItem(str(i), builder.SPLITS[i % 2], 'en', 'x')
           for i in range(10))
  found = [(shard.name, [item.text_id for item in shard.items])
           for shard in shards.cut(items, 2)]
  assert found == [
      ('train-000000', ['0', '2']), ('validation-000000', ['1', '3']),
      ('train-000001', ['4', '6']), ('validation-000001', ['5', '7']),
      ('train-000002', ['8']), ('validation-000002', ['9'])]


def test_beam_makes_the_same_files(raw, tmp_path, small_shards):
  pytest.importorskip(
      'apache_beam', reason='needs the packages of requirements-beam.txt')
  alone = _prepare(raw, tmp_path / 'alone')
  # A runner of one thread in this process: the toy extractor is only here.
  by_beam = _prepare(raw, tmp_path / 'beam', beam='runner=DirectRunner')
  assert _contents(alone) == _contents(by_beam)
  manifests = [json.loads((folder / 'manifest.json').read_text())
               for folder in (alone, by_beam)]
  assert manifests[0] == manifests[1]


def test_a_missing_beam_is_named(raw, tmp_path, small_shards, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  name = 'input_pipeline.beam'
  monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.delattr(input_pipeline, 'beam', raising=False)
  with pytest.raises(errors.UserError, match='requirements-beam.txt'):
    _prepare(raw, tmp_path, beam='runner=DirectRunner')
