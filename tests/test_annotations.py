"""Captions in the files that their authors publish, as items."""

import gzip
import importlib
import json
import pathlib
import pickle

import pytest
import tensorflow_datasets as tfds

from configs import languages as language_table
from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import prepare
from input_pipeline.datasets import text as text_dataset
from tests import caption_trees

_items = caption_trees.items
_write = caption_trees.write
_jsonl = caption_trees.jsonl
_karpathy = caption_trees.karpathy


@pytest.fixture
def multi30k(tmp_path):
  return caption_trees.multi30k(tmp_path)


def test_multi30k(multi30k):
  one = _items('multi30k_task1', multi30k)
  assert [split for split, _ in one.values()] == [
      'train', 'train', 'validation', 'test', 'test', 'test']
  assert sorted(one['2.jpg'][1]) == [
      (code, f'{code} 2.jpg') for code in ('cs', 'de', 'en', 'fr')]
  two = _items('multi30k_task2', multi30k / 'data' / 'task2', 'de')
  assert two['4.jpg'] == (
      'test', [('de', f'de {number} 4.jpg') for number in range(1, 6)])
  both = _items('multi30k', multi30k)
  assert {code: sum(found == code for found, _ in both['3.jpg'][1])
          for code in ('en', 'de', 'fr', 'cs')} == {
              'en': 5, 'de': 5, 'fr': 1, 'cs': 1}


def test_multi30k_with_a_line_too_few(multi30k):
  _write(multi30k / 'data' / 'task1' / 'raw' / 'train.cs.gz', 'one')
  with pytest.raises(errors.UserError, match=r'train\.cs\.gz has 1 lines; '
                     'allowed: 2, as images'):
    _items('multi30k_task1', multi30k)


def test_karpathy_and_what_follows_its_splits(tmp_path):
  rows = [('a.jpg', 1, 'train'), ('b.jpg', 2, 'restval'), ('c.jpg', 3, 'val'),
          ('d.jpg', 4, 'test')]
  _karpathy(tmp_path / 'dataset_coco.json', rows)
  _karpathy(tmp_path / 'dataset_flickr30k.json', rows)
  splits = {'a.jpg': 'train', 'b.jpg': 'train', 'c.jpg': 'validation',
            'd.jpg': 'test'}
  for name in ('coco', 'flickr30k'):
    items = _items(name, tmp_path)
    assert {image: split for image, (split, _) in items.items()} == splits
    assert items['b.jpg'][1] == [('en', f'b.jpg {i}') for i in range(5)]
  for split, numbers in (('train', (3, 4)), ('val', (1, 4, 99))):
    (tmp_path / f'stair_captions_v1.2_{split}.json').write_text(json.dumps({
        'annotations': [{'id': n, 'image_id': n, 'caption': f'文 {n} {split}'}
                        for n in numbers]}))
  assert _items('stair', tmp_path) == {
      'a.jpg': ('train', [('ja', '文 1 val')]),
      'c.jpg': ('validation', [('ja', '文 3 train')]),
      'd.jpg': ('test', [('ja', '文 4 train'), ('ja', '文 4 val')])}
  # Beside COCO's own file they are captions of the same images.
  both = _items('coco', tmp_path)
  assert {image: len(captions) for image, (_, captions) in both.items()} == {
      'a.jpg': 6, 'b.jpg': 5, 'c.jpg': 6, 'd.jpg': 7}
  assert _items('coco', tmp_path, 'ja') == _items('stair', tmp_path)
  (tmp_path / 'uvl_captions').mkdir()
  for code, protocol in (('en', 2), ('ja', 4), ('zh', 5)):
    (tmp_path / 'uvl_captions' / f'coco.{code}.pkl').write_bytes(pickle.dumps(
        {'c.jpg': [f'{code} 1', f'{code} 2'], 'nowhere.jpg': ['x']}, protocol))
  assert _items('m3p_coco', tmp_path) == {'c.jpg': ('validation', [
      (public, f'{code} {i}') for code, public in (
          ('en', 'en'), ('ja', 'ja'), ('zh', 'zh_CN')) for i in (1, 2)])}


def test_captions_in_a_pickle_are_text_only(tmp_path):
  _karpathy(tmp_path / 'dataset_flickr30k.json', [('a.jpg', 1, 'train')])
  path = tmp_path / 'flicker.de.pkl'
  for content, message in [
      (pickle.dumps({'a.jpg': pathlib.Path('x')}), 'asks for pathlib'),
      (pickle.dumps({'a.jpg': [3]}), 'captions are'),
      (pickle.dumps({'a.jpg': ['x \ud83d']}), 'is half a character'),
      (pickle.dumps({'\udce9.jpg': ['x']}), 'is half a character'),
      (pickle.dumps(['a']), 'holds list; allowed: a dict'),
      (pickle.dumps({'a.jpg': ['x']})[:-4], 'damaged')]:
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=rf'flicker\.de\.pkl.*{message}'):
      _items('m3p_flickr30k', tmp_path)


def test_wrong_json_is_named(tmp_path):
  path = tmp_path / 'dataset_coco.json'
  _karpathy(path, [('a.jpg', 1, 'train'), ('./a.jpg', 2, 'test')])
  with pytest.raises(errors.UserError, match=(
      r"image 1: '\./a\.jpg' is the picture of .*coco\.json, image 0")):
    _items('coco', tmp_path)
  _karpathy(path, [('a.jpg', 1, 'train')])
  path.write_text(path.read_text().replace(
      '"raw": "a.jpg 3"', '"raw": "a", "raw": "b"'))
  with pytest.raises(errors.UserError, match="coco.json: the key 'raw' stands"):
    _items('coco', tmp_path)
  path.write_text(path.read_text().replace('"raw": "a", ', '').replace(
      '"b"', '"b \\ud83d"'))
  with pytest.raises(errors.UserError, match=r"coco.json: .*half a character"):
    _items('coco', tmp_path)
  row = {'image/key': 'a', 'de': {'caption': ['eins \U0001f34e']}}
  _jsonl(tmp_path / 'captions.jsonl', row)
  assert _items('xm3600', tmp_path)['a'][1] == [('de', 'eins \U0001f34e')]
  _jsonl(tmp_path / 'captions.jsonl', row, row)
  with pytest.raises(errors.UserError, match=(
      r"captions\.jsonl:2: 'a' is the picture of .*captions\.jsonl:1")):
    _items('xm3600', tmp_path)
  row = {'sentences': ['x'], 'id': '7', 'img_path': '7.jpg'}
  for name, place in (('xflickrco', 'en/test.jsonl'),
                      ('iglue_flickr30k', 'test_ann.jsonl')):
    _jsonl(tmp_path / name / place, row, row | {'img_path': './7.jpg'})
    with pytest.raises(errors.UserError, match=r"jsonl:2: '\./7\.jpg' is the"):
      _items(name, tmp_path / name)


def test_pictures_and_lists_are_found_in_either_form(tmp_path):
  _write(tmp_path / 'test_image_names.txt', 'Ü.jpg', 'b.jpg')
  _write(tmp_path / 'test_1kcaptions_en.txt', 'a', 'b')
  for name in ('images/U\u0308.jpg', 'b.jpg'):
    _write(tmp_path / name)
  module = importlib.import_module('input_pipeline.datasets.xtd10')
  made = module.Builder.__new__(module.Builder)
  made.options = builder.Options(raw_dir=str(tmp_path))
  assert [item.path for item in made.items()] == [
      tmp_path / 'images/U\u0308.jpg', tmp_path / 'b.jpg']
  (tmp_path / 'test_image_names.txt').rename(
      tmp_path / 'Test_image_names.txt')
  with pytest.raises(errors.UserError, match="there is .*Test_image_names"):
    _items('xtd10', tmp_path)


def test_a_language_that_nobody_knows_is_an_error_when_strict(tmp_path):
  _jsonl(tmp_path / 'captions.jsonl', {
      'image/key': '00ab', 'de': {'caption': ['eins']},
      'quz': {'caption': ['huk']}})
  with pytest.raises(errors.UserError, match="unknown language 'quz'"):
    _items('xm3600', tmp_path, strict=True)


def test_text(tmp_path):
  _write(tmp_path / 'de' / 'AA' / 'wiki_00', *(json.dumps(
      {'id': str(i), 'title': 't', 'text': f'Titel {i}\n\nEin Satz.'})
                                         for i in range(3)))
  _write(tmp_path / 'zh.txt.gz', '人人生而自由。', '', '一只猫。')
  items = _items('text', tmp_path)
  assert [(item.language, item.text) for item in items] == [
      *((('de', text)) for i in range(3) for text in (
          f'Titel {i}', 'Ein Satz.')),
      ('zh_CN', '人人生而自由。'), ('zh_CN', '一只猫。')]
  assert {item.language for item in _items('text', tmp_path, 'de')} == {'de'}
  _write(tmp_path / 'xx.txt', 'what?')
  with pytest.raises(errors.UserError, match=r"xx\.txt: unknown language 'xx'"):
    _items('text', tmp_path)


@pytest.mark.parametrize('text, wanted', [
    ('It has 3.5 m, e.g. in the U.S. It is (no "joke.") So be it.',
     ['It has 3.5 m, e.g. in the U.S.', 'It is (no "joke.")', 'So be it.']),
    ('人人生而自由。猫！“真的？”是',
     ['人人生而自由。', '猫！', '“真的？”', '是']),
    ('यह है। वह है।', ['यह है।', 'वह है।']),
    ('هل هذا؟ نعم.', ['هل هذا؟', 'نعم.']),
    ('What?! Yes!, he said... and left.',
     ['What?!', 'Yes!, he said... and left.']),
    ('ไม่มีจุด อีกประโยค', ['ไม่มีจุด อีกประโยค']), (' . ', ['.']), ('', [])])
def test_sentences_by_unicodes_rules(text, wanted):
  assert text_dataset.sentences(text) == wanted


def _articles(folder, config, texts):
  """Writes what TFDS's builder of Wikipedia leaves, by TFDS itself."""
  class Wikipedia(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS's features and names; the real one needs the dump and Beam."""
    name, code_path = 'wikipedia', None
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, description='')]

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=(
          tfds.features.FeaturesDict({'title': tfds.features.Text(),
                                      'text': tfds.features.Text()})))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': ((i, {'title': f't{i}', 'text': text})
                        for i, text in enumerate(texts))}

    def _generate_examples(self):
      raise NotImplementedError

  Wikipedia(data_dir=folder).download_and_prepare()


def test_wikipedia_of_tfds_and_of_wikiextractor(tmp_path):
  made = {'20230601.de': ['Ein Satz. Noch einer.\n\nAbsatz', 'Zwei.'],
          '20230601.als': ['Ebbis.'], '20230601.zh-min-nan': ['Lâng.'],
          '20230601.tokipona': ['toki.'], '20230601.simple': ['One. Two.']}
  for config, texts in made.items():
    _articles(tmp_path / 'tfds', config, texts)
    for i, text in enumerate(texts):
      _jsonl(tmp_path / 'extracted' / f'{config.partition(".")[2]}wiki-20240101'
             / f'A{i}' / 'wiki_00', {'id': str(i), 'title': 't', 'text': text})
  texts = {}
  for kind in ('tfds', 'extracted'):
    items = _items('wikipedia', tmp_path / kind)
    texts[kind] = sorted((item.language, item.text) for item in items)
    few = _items('wikipedia', tmp_path / kind, limit=4)
    assert len({item.language for item in few}) == 4
  assert texts['tfds'] == texts['extracted'] == sorted([
      ('gsw', 'Ebbis.'), ('nan', 'Lâng.'), ('en', 'One.'), ('en', 'Two.'),
      *(('de', text) for text in ('Ein Satz.', 'Noch einer.', 'Absatz', 'Zwei.')
        )])
  folder = prepare.prepare('wikipedia', str(tmp_path / 'data'),
                           raw_dir=str(tmp_path / 'tfds'))
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['editions_left_out'] == ['tokipona']
  assert manifest['languages'] == ['de', 'en', 'gsw', 'nan']
  _write(tmp_path / 'de.txt', '<doc id="1" url="" title="t">', 'Text.')
  with pytest.raises(errors.UserError, match='WikiExtractor writes with'):
    _items('wikipedia', tmp_path)


def test_every_edition_of_the_paper_has_a_language():
  codes = {edition: languages.edition(edition)
           for edition in language_table.EDITIONS}
  assert len(codes) == len(language_table.EDITIONS) == 100
  assert all(codes.values())
  assert {edition: code for edition, code in codes.items()
          if edition != code} == {
      'als': 'gsw', 'no': 'nb', 'simple': 'en', 'tl': 'fil', 'zh': 'zh_CN',
      'zh_classical': 'lzh', 'zh_min_nan': 'nan', 'zh_yue': 'yue'}


@pytest.mark.parametrize('content', [
    b'\xff\xfe\x00', b'\x1f\x8b\x08 cut',
    gzip.compress(b'', mtime=0)[:10] + b'\xff'])
def test_damaged_text_is_named(tmp_path, content):
  is_gzip = content.startswith(b'\x1f')
  path = tmp_path / ('de.txt.gz' if is_gzip else 'de.txt')
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=r'de\.txt.*(damaged|not UTF-8)'):
    _items('text', tmp_path)


@pytest.mark.parametrize('name', [
    'coco', 'multi30k', 'xtd10', 'text', 'xflickrco', 'm3p_coco', 'sbu'])
def test_a_missing_folder_or_file_is_named(tmp_path, name):
  with pytest.raises(errors.UserError, match="raw_dir is ''"):
    _items(name, '')
  if name != 'text':
    with pytest.raises(errors.UserError, match=' has no '):
      _items(name, tmp_path)
