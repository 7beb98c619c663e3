"""Preparation: what comes out, what is skipped, and what a user gets wrong."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import prepare
from input_pipeline.vision import extractors
from tests import toy

ROOT = pathlib.Path(__file__).parent.parent
# The unusable ones, with what their skips are counted under.
BAD = {
    'broken.png': 'unreadable', 'tiny.png': 'too small',
    'sizeless.svg': 'SVG without size', 'absent.png': 'missing',
    'silent.png': 'no caption'}


@pytest.fixture
def toy_extractor(monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', toy.Extractor)


def _row(image, split='train', **captions):
  return {'image': image, 'split': split, 'captions': captions}


def _write_rows(folder, rows):
  text = '\n'.join(json.dumps(row, ensure_ascii=False) for row in rows)
  (folder / 'captions.jsonl').write_text(text, encoding='utf-8')


@pytest.fixture
def raw(tmp_path, toy_extractor):
  """A user's folder: good pictures, and all that can be wrong with one."""
  folder = tmp_path / 'raw'
  (folder / 'more').mkdir(parents=True)
  for i, name in enumerate(['black.png', 'white.png', 'more/grey.jpg',
                            'silent.png']):
    Image.new('RGB', (40 + i, 30), (100 * i, 100, 100)).save(folder / name)
  Image.new('RGB', (5, 40)).save(folder / 'tiny.png')
  (folder / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n not really')
  (folder / 'sizeless.svg').write_text(
      '<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>')
  _write_rows(folder, [
      _row('black.png', en=['A cat.', ''], de=['Eine\u2028Katze.']),
      _row('white.png', 'test', en=['A dog.', 'word ' * 1000]),
      _row('more/grey.jpg', en=['a bird']) | {'group': 'animals'},
      *(_row(name, 'validation', en=['lost']) for name in BAD
        if name != 'silent.png'),
      _row('silent.png', en=['  '])])
  return folder


def _prepare(raw_dir, data_dir, max_bad=1.0, **options):
  return prepare.prepare('captions', str(data_dir), raw_dir=str(raw_dir),
                         max_bad=max_bad, **options)


def _read(folder):
  (described,) = folder.glob('*/*/dataset_info.json')
  made = tfds.builder_from_directory(described.parent)
  return {record['image_id'].decode(): record | {'split': split}
          for split in made.info.splits for record in tfds.as_numpy(
              made.as_dataset(split=split, read_config=tfds.ReadConfig(
                  try_autocache=False)))}


def test_own_pictures(raw, tmp_path):
  folder = _prepare(raw, tmp_path / 'data')
  records = _read(folder)
  assert set(records) == {'black.png', 'white.png', 'more/grey.jpg'}
  assert records['black.png']['group'] == b'black.png'
  assert records['more/grey.jpg']['group'] == b'animals'
  assert records['black.png']['width'] == 40
  assert records['black.png']['features'].shape == (2, 1280)
  assert [text.decode() for text in records['black.png']['captions']['text']
          ] == ['A cat.', 'Eine Katze.']
  for image_id in records:
    assert max(Image.open(copies.small(folder, image_id)).size) <= 160
    assert copies.original(folder, image_id) == (raw / image_id).resolve()


def test_unusable_items_are_counted(raw, tmp_path):
  manifest = json.loads(
      (_prepare(raw, tmp_path) / 'manifest.json').read_text())
  # All validation pictures are unusable: there is no such split.
  assert manifest['counts'] == {'train': 2, 'test': 1}
  assert manifest['skipped'] == {
      **dict.fromkeys(BAD.values(), 1), 'empty caption': 2,
      'caption over 100 words': 1}
  assert manifest['languages'] == ['de', 'en']
  assert manifest['feature_extractor'] == {'name': 'toy'}
  assert set(manifest['tokenizer']) == {'source', 'sha256', 'vocab_size'}
  assert manifest['max_class_id'] == 3


def test_more_unusable_items_than_allowed(raw, tmp_path):
  with pytest.raises(errors.UserError, match=(
      "captions: 8 of 11 items cannot be used, more than --max_bad=0.01.*"
      "'unreadable': 1.*unreadable: .*broken.png")):
    _prepare(raw, tmp_path / 'data', max_bad=prepare.MAX_BAD)
  assert not (tmp_path / 'data' / 'captions').exists()
  assert len(_read(_prepare(raw, tmp_path / 'data', max_bad=0.8))) == 3
  _write_rows(raw, [_row('black.png', en=['A cat.'])])
  assert len(_read(_prepare(raw, tmp_path / 'data', max_bad=0))) == 1


def test_strict_names_the_file_and_keeps_what_was_there(raw, tmp_path):
  folder = _prepare(raw, tmp_path / 'data')
  before = (folder / 'manifest.json').read_text()
  with pytest.raises(errors.UserError, match=r'\.png|\.svg'):
    _prepare(raw, tmp_path / 'data', strict=True)
  assert (folder / 'manifest.json').read_text() == before
  assert [path.name for path in (tmp_path / 'data').iterdir()
          if path.name != '.captions.lock'] == ['captions']


def test_other_languages_are_prepared_again(raw, tmp_path):
  manifests = [json.loads((_prepare(
      raw, tmp_path, languages=languages) / 'manifest.json').read_text())
               for languages in ([], ['en'])]
  assert [found['languages'] for found in manifests] == [['de', 'en'], ['en']]


@pytest.mark.parametrize(('line', 'message'), [
    ('{"image": "a.png"', r'captions\.jsonl:2: not JSON'),
    ('["a.png"]', ':2: found list; allowed: an object'),
    ('{"image": "a.png", "capions": {}}', "key in .*:2: 'capions'.*'captions'"),
    ('{"image": ""}', ":2: \"image\" is ''"),
    ('{"image": "../a.png"}', 'allowed: a file below'),
    ('{"image": "/etc/a.png"}', 'allowed: a file below'),
    *((json.dumps({'image': image}),
       r':2: .*black\.png. is the picture of .*captions\.jsonl:1;')
      for image in ('black.png', './black.png', './/black.png')),
    ('{"image": "absent/x.png"}\n{"image": "absent\\\\x.png"}',
     ':3: .*is the picture of .*:2;'),
    ('{"image": "absent.png"}\n{"image": "absent.png"}', ':3: .*of .*:2;'),
    ('{"image": "a/../black.png"}', ':2: .*allowed: a file below'),
    ('{"image": "a\\\\..\\\\black.png"}', ':2: .*allowed: a file below'),
    ('{"image": "a\\u0000.png"}', r':2: .*a\\x00.*allowed: a file below'),
    ('{"image": "a.png", "image": "b.png"}',
     ":2: the key 'image' stands there 2 times"),
    ('{"image": "a.png", "captions": {"en": ["a"], "de": [], "en": ["b"]}}',
     ":2: the key 'en' stands there 2 times"),
    ('{"image": "a.png", "captions": {"en": ["a dog \\uD83D"]}}',
     r":2: '\\ud83d' behind '.*a dog ' is half a character"),
    ('{"image": "\\udce9.png"}', ':2: .*is half a character'),
    ('{"image": "a.png", "split": "dev"}', "split in .*'dev'.*validation"),
    ('{"image": "a.png", "captions": {"en": "cat"}}', '"captions" is'),
    ('{"image": "a.png", "captions": {"zz": ["cat"]}}',
     ":2: unknown language 'zz'"),
    ('{"image": "a.png", "group": 3}', '"group" is 3')])
def test_a_wrong_line_is_named(raw, tmp_path, line, message):
  first = json.dumps(_row('black.png', en=['A cat.']))
  (raw / 'captions.jsonl').write_text(f'{first}\n{line}\n')
  with pytest.raises(errors.UserError, match=message):
    _prepare(raw, tmp_path)


def test_names_find_their_files(tmp_path, toy_extractor):
  del toy_extractor
  # In the folder → in the list.
  names = {'U\u0308.png': 'Ü.png', 'Ä.png': 'A\u0308.png', 'CAT.PNG': 'cat.png',
           'sub/d.png': 'sub\\d.png'}
  raw = tmp_path / 'raw'
  (raw / 'sub').mkdir(parents=True)
  for shade, name in enumerate(names):
    Image.new('L', (32, 32), 40 * shade).save(raw / name)
  _write_rows(raw, [_row(name, 'test', en=[f'{shade}'])
                    for shade, name in enumerate(names.values())])
  folder = _prepare(raw, tmp_path, max_bad=0.5)
  records = _read(folder)
  assert len(records) == 3
  for record in records.values():
    shade = int(record['captions']['text'][0])
    assert record['features'].mean() == pytest.approx(
        40 * shade / 255, abs=1e-3)
  skipped = json.loads((folder / 'skipped.jsonl').read_text())
  assert skipped['reason'] == 'missing'
  assert "cat.png; there is '" in skipped['item']
  assert "CAT.PNG'" in skipped['item']


def test_wrong_arguments_are_named(raw, tmp_path):
  for options, message in [
      (dict(features='gird'), "--features 'gird'; did you mean 'grid'"),
      (dict(storage='int4'), "--storage 'int4'"),
      (dict(languages=['deu']), "language 'deu'; did you mean 'de'")]:
    with pytest.raises(errors.UserError, match=message):
      _prepare(raw, tmp_path, **options)
  with pytest.raises(errors.UserError, match="--dataset 'emojis'.*'emoji'"):
    prepare.prepare('emojis', str(tmp_path))
  with pytest.raises(errors.UserError, match='--raw_dir'):
    _prepare(tmp_path / 'nowhere', tmp_path)
  (tmp_path / 'Captions.jsonl').write_text('')
  with pytest.raises(errors.UserError, match='there is .*Captions.jsonl'):
    _prepare(tmp_path, tmp_path)
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='cannot prepare captions in'):
    _prepare(raw, tmp_path / 'file')
  (raw / 'captions.jsonl').write_bytes(b'\xff\xfe')
  with pytest.raises(errors.UserError, match='not UTF-8'):
    _prepare(raw, tmp_path)


def test_captions_without_a_character_are_counted(raw, tmp_path):
  (raw / 'captions.jsonl').write_text(
      '{"image": "black.png", "captions": {"en": ["a dog"]}}\n'
      '{"image": "white.png", "captions": {"en": ["\\u200b", "a cat\\u001f"]}}')
  folder = _prepare(raw, tmp_path)
  assert json.loads((folder / 'manifest.json').read_text())['skipped'] == {
      'empty caption': 1}
  assert [record['captions']['text'].tolist()
          for _, record in sorted(_read(folder).items())] == [
              [b'a dog'], [b'a cat\x1f']]


def test_sentences_that_are_no_text_are_counted(tmp_path):
  raw = tmp_path / 'raw'
  raw.mkdir()
  (raw / 'en.txt').write_text(
      '{"id": "1 \\ud83d", "text": "One sentence."}\n'
      '{"id": "2", "text": "Half a \\ud83d pair."}\n')
  folder = prepare.prepare('text', str(tmp_path), raw_dir=str(raw),
                           max_bad=1.0)
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['skipped'] == {'not UTF-8': 1}
  assert sum(manifest['counts'].values()) == 1


def test_nothing_usable(raw, tmp_path):
  _write_rows(raw, [_row('tiny.png', en=['small'])])
  with pytest.raises(errors.UserError, match="no usable item.*'too small': 1"):
    _prepare(raw, tmp_path / 'data')
  assert not (tmp_path / 'data' / 'captions').exists()


def test_real_pictures_with_real_features(tmp_path):
  folder = prepare.prepare('tux_paint', str(tmp_path), limit=12)
  manifest = json.loads((folder / 'manifest.json').read_text())
  usable = 12 - sum(manifest['skipped'].values())
  assert sum(manifest['counts'].values()) == usable > 8
  for record in _read(folder).values():
    assert record['features'].shape == (10, 1280)
    assert np.isfinite(record['features']).all()
    assert record['features'].std() > 0.1
    assert record['class_ids'].max() > 0
    x1, y1, x2, y2 = record['boxes'].T
    assert (x2 >= x1).all() and (x2 <= record['width']).all()
    assert (y2 >= y1).all() and (y2 <= record['height']).all()
    assert b'en' in record['captions']['language']


def test_command_line(tmp_path):
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  result = subprocess.run(
      [sys.executable, '-m', 'input_pipeline.prepare', '--dataset=udhr',
       f'--data_dir={tmp_path}', '--languages=en,de', '--limit=40'], cwd=ROOT,
      capture_output=True, text=True, check=False,
      env=os.environ | {'TMPDIR': str(temporary)})
  assert result.returncode == 0, result.stderr
  # Results alone are on stdout.
  assert result.stdout.startswith(f'{tmp_path}/udhr: ')
  assert result.stdout.count('\n') == 1
  assert not list(temporary.iterdir())
