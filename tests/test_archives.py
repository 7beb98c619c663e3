"""Pictures inside of the files of img2dataset and TFDS, prepared as they lie.

The files are written as img2dataset 1.47 writes them: the same names, keys and
statistics; a run of it over pictures on this machine gave these.
"""

import io
import json
import tarfile

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.object_detection import coco_captions

from input_pipeline import builder
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import prepare
from input_pipeline.datasets import conceptual_captions
from input_pipeline.vision import extractors
from tests import toy

_FORMATS = ('files', 'webdataset', 'tfrecord')


@pytest.fixture(autouse=True)
def _toy_extractor(monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', toy.Extractor)


def _jpeg(shade):
  content = io.BytesIO()
  side = 40 + shade % 3
  Image.new('RGB', (side, side), (shade,) * 3).save(content, 'JPEG')
  return content.getvalue()


def _feature(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _write_shard(folder, kind, shard, shades):
  """Writes a shard; of its links, every one of an odd number is dead."""
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for number, shade in list(enumerate(shades))[::2]:
    key = f'{shard:05d}{number:04d}'
    caption = f'caption {shade}'
    found[key] = {'jpg': _jpeg(shade), 'txt': caption.encode(),
                  'json': json.dumps({'caption': caption, 'key': key,
                                      'status': 'success'}).encode()}
  stem = folder / f'{shard:05d}'
  if kind == 'files':
    stem.mkdir()
    for key, parts in found.items():
      for ending, content in parts.items():
        (stem / f'{key}.{ending}').write_bytes(content)
  elif kind == 'webdataset':
    with tarfile.open(f'{stem}.tar', 'w') as archive:
      for key, parts in found.items():
        for ending, content in parts.items():
          member = tarfile.TarInfo(f'{key}.{ending}')
          member.size = len(content)
          archive.addfile(member, io.BytesIO(content))
  elif kind == 'tfrecord':
    with tf.io.TFRecordWriter(f'{stem}.tfrecord') as writer:
      for key, parts in found.items():
        features = {'key': key.encode(), 'jpg': parts['jpg'],
                    'txt': parts['txt']}
        writer.write(tf.train.Example(features=tf.train.Features(feature={
            name: _feature(value) for name, value in features.items()}
        )).SerializeToString())
  (folder / f'{shard:05d}_stats.json').write_text(json.dumps({
      'count': len(shades), 'successes': len(found), 'status_dict': {
          'success': len(found),
          'HTTP Error 404: Not Found': len(shades) - len(found)}}))


def _read(folder):
  (described,) = folder.glob('*/*/dataset_info.json')
  made = tfds.builder_from_directory(described.parent)
  return {split: {record['image_id'].decode(): record for record in
                  tfds.as_numpy(made.as_dataset(split=split))}
          for split in made.info.splits}


def _texts(record):
  return [text.decode() for text in record['captions']['text']]


@pytest.mark.parametrize('kind', _FORMATS)
def test_what_img2dataset_fetched(tmp_path, kind):
  raw = tmp_path / 'raw'
  _write_shard(raw, kind, 0, (10, 20, 30, 40))
  _write_shard(raw, kind, 1, (200,))
  _write_shard(raw / 'validation', kind, 0, (90, 91))
  folder = prepare.prepare('conceptual_captions', str(tmp_path / 'data'),
                           raw_dir=str(raw))
  found = _read(folder)
  assert {split: sorted(rows) for split, rows in found.items()} == {
      'train': ['000000000', '000000002', '000010000'],
      'validation': ['validation_000000000']}
  for split, name, shade in (('train', '000000002', 30),
                             ('train', '000010000', 200),
                             ('validation', 'validation_000000000', 90)):
    record = found[split][name]
    assert _texts(record) == [f'caption {shade}']
    assert record['width'] == 40 + shade % 3
    np.testing.assert_allclose(record['features'], shade / 255, atol=0.01)
    assert copies.small(folder, name)
    assert bool(copies.original(folder, name)) == (kind == 'files')
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['dead_links'] == {'HTTP Error 404: Not Found': 3}
  assert manifest['counts'] == {'train': 3, 'validation': 1}
  # Another process gets items as JSON.
  for item in conceptual_captions.Builder.list_items(
      builder.Options(raw_dir=str(raw))):
    again = builder.ImageTextBuilder.restore_item(
        None, json.loads(json.dumps(item, default=str)))
    assert (again.path, again.span) == (item.path, item.span)
  few = prepare.prepare('conceptual_captions', str(tmp_path / 'few'), limit=2,
                        raw_dir=str(raw))
  assert set(_read(few)) == {'train', 'validation'}


@pytest.mark.parametrize('name, message', [
    ('00000.tfrecord', 'cut off, or no TFRecord'), ('00000.tar', 'damaged'),
    ('00000_stats.json', 'its shards are Parquet'),
    ('x.txt', 'has no google.csv')])
def test_damaged_and_missing_shards_are_named(tmp_path, name, message):
  (tmp_path / 'raw').mkdir()
  (tmp_path / 'raw' / name).write_bytes(b'{"status_dict": {}}')
  with pytest.raises(errors.UserError, match=message):
    prepare.prepare('conceptual_captions', str(tmp_path / 'data'),
                    raw_dir=str(tmp_path / 'raw'))


class CocoCaptions(coco_captions.CocoCaptions, skip_registration=True):
  """TFDS's own builder, with other pictures."""
  code_path = None  # Of which TFDS would read the checksums.

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split)
            for split in ('train', 'restval', 'val', 'test')}

  def _generate_examples(self, split):
    for number in range(3):
      name = f'COCO_{split}_{number}.jpg'
      yield name, {
          'image': io.BytesIO(_jpeg(60 * number)), 'image/filename': name,
          'image/id': number, 'objects': [],
          'captions': [{'id': i, 'text': f'{name} {i}'} for i in range(5)]}


@pytest.fixture(name='prepared', scope='module')
def _prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  CocoCaptions(data_dir=folder).download_and_prepare()
  return folder


def test_coco_captions_as_tfds_has_prepared_them(prepared, tmp_path):
  folder = prepare.prepare('tfds:coco_captions', str(tmp_path),
                           raw_dir=str(prepared))
  assert folder == tmp_path / 'coco_captions'
  found = _read(folder)
  assert {split: len(rows) for split, rows in found.items()} == {
      'train': 6, 'validation': 3, 'test': 3}
  record = found['train']['COCO_restval_2.jpg']
  assert _texts(record) == [f'COCO_restval_2.jpg {i}' for i in range(5)]
  np.testing.assert_allclose(record['features'], 120 / 255, atol=0.01)
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['fields'] == {
      'image': 'image', 'id': 'image/filename', 'en': 'captions/text'}
  assert manifest['dataset'] == 'coco_captions'
  # Read again it is the same; said otherwise it is another.
  again = prepare.key_of('tfds:coco_captions', str(tmp_path),
                         raw_dir=str(prepared))
  assert prepare.read_key(folder) == again
  prepare.prepare('tfds:coco_captions', str(tmp_path), raw_dir=str(prepared),
                  fields=['image=image', 'id=image/id', 'de=captions/text'],
                  limit=4)
  found = _read(folder)
  assert set(found) == {'train', 'validation', 'test'}
  (record,) = found['test'].values()
  assert record['image_id'].decode().isdigit()
  assert set(record['captions']['language']) == {b'de'}


def test_what_tfds_has_not_is_named(prepared, tmp_path):
  for dataset, options, message in (
      ('tfds:flickr30k', {}, "no prepared sets called 'flickr30k'"),
      ('tfds', {}, "--dataset is 'tfds'; allowed: tfds:NAME"),
      ('coco:x', {}, 'or a dataset without a colon'),
      ('tfds:coco_captions', {'fields': ['image=picture']},
       "--fields=image= 'picture'"),
      ('tfds:coco_captions', {'fields': ['image=image']}, 'must name the im'),
      ('tfds:coco_captions', {'fields': ['xx=captions/text']}, "'xx'"),
      ('conceptual_captions', {'fields': ['image=image']}, 'and --fields for')):
    with pytest.raises(errors.UserError, match=message):
      prepare.prepare(dataset, str(tmp_path), raw_dir=str(prepared), **options)


def test_an_estimate_writes_nothing(tmp_path, monkeypatch):
  _write_shard(tmp_path / 'raw', 'webdataset', 0, range(200))
  dataset, options = 'conceptual_captions', {'raw_dir': str(tmp_path / 'raw')}
  monkeypatch.setattr(prepare, '_FEW', 10)
  monkeypatch.setattr(prepare, '_MEASURED', 40)
  total, size, hours = prepare.estimate(dataset, **options)
  assert total == 100 and 0 < hours < 0.1
  folder = prepare.prepare(dataset, str(tmp_path / 'data'), **options)
  written = sum(path.stat().st_size for path in folder.rglob('*')
                if path.is_file())
  assert 0.8 * written < size < 1.2 * written
