"""Published captions in trees that lie as their releases do."""

import gzip
import json
import pickle

import numpy as np
from PIL import Image
import pytest

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import prepare
from input_pipeline import store
from input_pipeline.datasets import _readers
from input_pipeline.regions import source
from m3p_jax.evaluation import protocols
from tests import caption_trees as trees
from tests import region_writers as writers


def _hide(folder, *names):
  """Writes what macOS leaves beside files."""
  (folder / '.DS_Store').write_bytes(b'\0\0\0\1Bud1\xff')
  for name in names:
    (folder / f'._{name}').write_bytes(b'\0\5\x16\7\xff')


def _prepare(tmp_path, dataset, raw, names, **options):
  features = tmp_path / 'features'
  features.mkdir(exist_ok=True)
  path = writers.butd_tsv(features, [
      writers.image(name, seed=n, feature_dim=4)
      for n, name in enumerate(names)])
  return prepare.prepare(
      dataset, str(tmp_path / 'data'), raw_dir=str(raw), features=str(path),
      features_format='butd_tsv', **options)


@pytest.fixture
def xtd10(tmp_path):
  names = [f'COCO_val2014_{i:012}.jpg' for i in (7, 5, 6)]
  for place, code, text in (
      ('XTD10', 'es', 'uno\r\ndos\u2028dos\r\ntres'),
      ('XTD10', 'zh', '一\n"二\x85二\n三\n\n'),
      ('MIC', 'de', 'eins\nzwei\ndrei\n'), ('MIC', 'en', 'one\n\nthree\n'),
      ('STAIR', 'jp', 'いち\nに\n\n\n')):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / f'test_1kcaptions_{code}.txt').write_bytes(
        text.encode())
  (tmp_path / 'XTD10' / 'test_image_names.txt').write_text('\n'.join(names))
  _hide(tmp_path / 'XTD10', 'test_1kcaptions_es.txt', 'test_image_names.txt')
  return tmp_path


def test_xtd10(xtd10, caplog):
  items = trees.items('xtd10', xtd10)
  assert list(items) == [f'COCO_val2014_{i:012}.jpg' for i in (7, 5, 6)]
  assert [captions for _, captions in items.values()] == [
      [('de', 'eins'), ('en', 'one'), ('ja', 'いち'), ('es', 'uno'),
       ('zh_CN', '一')],
      [('de', 'zwei'), ('en', ''), ('ja', 'に'), ('es', 'dos\u2028dos'),
       ('zh_CN', '"二\x85二')],
      [('de', 'drei'), ('en', 'three'), ('ja', ''), ('es', 'tres'),
       ('zh_CN', '三')]]
  assert not caplog.records
  part = trees.items('xtd10', xtd10 / 'XTD10')
  assert {code for _, captions in part.values() for code, _ in captions} == {
      'es', 'zh_CN'}
  assert f'MIC and STAIR beside it; --raw_dir={xtd10}' in caplog.text
  trees.write(xtd10 / 'old' / 'test_1kcaptions_es.txt', 'a', 'b', 'c')
  with pytest.raises(errors.UserError, match=r'both have es; allowed: one'):
    trees.items('xtd10', xtd10)


@pytest.mark.parametrize('lines', [('a.jpg', '', 'b.jpg'), ('a.jpg', 'a.jpg')])
def test_a_list_has_each_image_once(tmp_path, lines):
  trees.write(tmp_path / 'test_image_names.txt', *lines)
  with pytest.raises(errors.UserError, match=r'names\.txt:2: found .*other'):
    trees.items('xtd10', tmp_path)


def test_pictures_of_coco_lie_in_its_folders(xtd10):
  name = 'COCO_val2014_000000000005.jpg'
  path = xtd10 / 'images' / 'val2014' / name
  path.parent.mkdir(parents=True)
  Image.new('RGB', (9, 8)).save(path)
  made = _readers.Builder.__new__(_readers.Builder)
  made.options = builder.Options(raw_dir=str(xtd10))
  assert made.item(name, 'test', []).path == path


def test_coco_cn(tmp_path, caplog):
  root = tmp_path / 'coco-cn-version1805v1.1'
  lists = {'train': 'ba', 'val': 'dc', 'test': 'feg'}
  for split, names in lists.items():
    trees.write(root / f'coco-cn_{split}.txt', *names)
  for name, ending in (
      ('human-written-caption', ''), ('human-written-caption.bosonseg', ':n'),
      ('manually-translated-caption', ' 译')):
    trees.write(root / f'imageid.{name}.txt', *(
        f'{image}#{k}\t{image} {k}{ending}' for image in 'abcdef'
        for k in range(1 + (image == 'e'))))
  trees.write(root / 'imageid.human-written-tags.txt', 'a 猫 路')
  trees.write(root / 'README.txt', 'COCO-CN')
  trees.write(tmp_path / 'data' / 'coco-cn_ext.icap2020.txt',
              'a#1\t更多', 'f#1\t不要', 'z#0\t鸟')
  _hide(root, 'coco-cn_test.txt', 'imageid.human-written-caption.txt')
  own = {image: (split, [('zh_CN', f'{image} {k}')
                         for k in range(1 + (image == 'e'))])
         for image, split in zip('badcfe', (
             'train', 'train', 'validation', 'validation', 'test', 'test'),
             strict=True)}
  items = trees.items('coco_cn', root)
  assert items == {f'{image}.jpg': found for image, found in own.items()}
  assert list(items) == [f'{image}.jpg' for image in 'badcfe']
  assert "human-written-caption.txt: 1 images, the first 'g'" in caplog.text
  own['a'][1].append(('zh_CN', '更多'))
  own['z'] = 'train', [('zh_CN', '鸟')]
  assert trees.items('coco_cn', tmp_path) == {
      f'{image}.jpg': found for image, found in own.items()}
  folder = _prepare(tmp_path, 'coco_cn', root, 'abcdef')
  assert json.loads((folder / 'manifest.json').read_text())['counts'] == {
      'train': 2, 'validation': 2, 'test': 2}
  trees.write(root / 'coco-cn_val.txt', 'd', 'c', 'e')
  with pytest.raises(errors.UserError, match="'e' is in .*test.*_val"):
    trees.items('coco_cn', root)
  trees.write(root / 'coco-cn_val.txt', 'd', 'c')
  trees.write(root / 'imageid.human-written-caption.txt', 'a 0 猫')
  with pytest.raises(errors.UserError, match=r'caption\.txt:1.*imgname#k'):
    trees.items('coco_cn', root)


def test_multi30k_after_gunzip_keeps_five_captions(tmp_path, caplog):
  root = trees.multi30k(tmp_path)
  raw = root / 'data' / 'task2' / 'raw'
  before = {name: trees.items(name, root)
            for name in ('multi30k', 'multi30k_task1', 'multi30k_task2')}
  for path in root.rglob('*.gz'):
    path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
    _hide(path.parent, path.name, path.stem)
  for name, items in before.items():
    assert trees.items(name, root) == items
    assert list(items) == ['2.jpg', '1.jpg', '3.jpg', '6.jpg', '4.jpg', '5.jpg']
  for folder in (root / 'data', root / 'data' / 'task2'):
    assert trees.items('multi30k_task2', folder) == before['multi30k_task2']
  assert trees.items('multi30k', root, 'fr')['6.jpg'][1] == [('fr', 'fr 6.jpg')]
  # Task 2's five captions are not Task 1's.
  with pytest.raises(errors.UserError, match=r'no raw/train\.en\.gz'):
    trees.items('multi30k_task1', root / 'data' / 'task2')
  assert not caplog.records
  trees.write(raw / 'test_2016.1.en', 'mine', 'and', 'mine')
  assert ('en', 'mine') in trees.items('multi30k_task2', root)['6.jpg'][1]
  assert f'{raw}/test_2016.1.en and {raw}/test_2016.1.en.gz differ' in (
      caplog.text)


def test_a_line_of_a_table_is_a_row(tmp_path):
  rows = ['caption\turl', 'first\tu', '"second\tu', '', 'fourth, 4"\tu',
          '"a ""red"" cat"\tu', 'six\u2028\x85\tu\r', '"seven"\tu', '', '']
  trees.write(tmp_path / 'uvl_captions' / 'google.csv', *rows)
  trees.write(tmp_path / 'uvl_captions' / 'google.valid.csv',
              'id\tcaption', '0\tx', 'short', '2\ty')
  texts = ['first', '"second', '', 'fourth, 4"', 'a "red" cat',
           'six\u2028\x85', '"seven"']
  wanted = {str(i): ('train', [('en', text)]) for i, text in enumerate(texts)}
  wanted |= {f'valid_{i}': ('validation', [('en', text)])
             for i, text in enumerate(['x', '', 'y'])}
  for folder in (tmp_path, tmp_path / 'uvl_captions'):
    assert trees.items('conceptual_captions', folder) == wanted
  public = tmp_path / 'public'
  for name in ('Train_GCC-training.tsv', 'Validation_GCC-1.1.0-Validation.tsv'):
    trees.write(public / name, *(row.replace('\tu', '\thttp://u')
                                 for row in rows[1:]))
  assert trees.items('conceptual_captions', public) == {
      f'{prefix}{i}': (split, [('en', text)])
      for prefix, split in (('', 'train'), ('valid_', 'validation'))
      for i, text in enumerate(texts)}


def test_sbu(tmp_path):
  trees.write(tmp_path / 'sbu.csv', 'url\tcaption', 'http://a\ty')
  assert trees.items('sbu', tmp_path) == {'0': ('train', [('en', 'y')])}
  trees.write(tmp_path / 'sbu.csv', 'url\ttext', 'a\tb')
  with pytest.raises(errors.UserError, match='one must be "caption"'):
    trees.items('sbu', tmp_path)
  (tmp_path / 'sbu.csv').unlink()
  name = 'SBU_captioned_photo_dataset_{}.txt'
  trees.write(tmp_path / 'dataset' / name.format('captions'), 'a, "b', '', 'c')
  trees.write(tmp_path / 'dataset' / name.format('urls'), *'uvw')
  for folder in (tmp_path, tmp_path / 'dataset'):
    assert trees.items('sbu', folder) == {
        str(i): ('train', [('en', text)])
        for i, text in enumerate(['a, "b', '', 'c'])}


def test_karpathy_of_other_shapes(tmp_path, caplog):
  rows = [(f'{n}.jpg', n, split) for n, split in (
      (9, 'test'), (2, 'restval'), (7, 'test'), (3, 'val'), (8, 'test'))]
  for path in (tmp_path / 'dataset_coco.json',
               tmp_path / 'old' / 'coco' / 'dataset.json'):
    trees.karpathy(path, rows, captions=7)
  items = trees.items('coco', tmp_path)
  assert list(items) == [name for name, *_ in rows]
  assert {len(captions) for _, captions in items.values()} == {7}
  assert trees.items('coco', tmp_path / 'old') == items
  assert not caplog.records
  trees.write(tmp_path / 'test1k_ids.txt', '8', '9')
  assert [name for name, (split, _) in trees.items('coco', tmp_path).items()
          if split == 'test'] == ['9.jpg', '8.jpg']
  assert 'test has its 2 images instead of 3' in caplog.text
  (tmp_path / 'coco.en.pkl').write_bytes(pickle.dumps(
      {name: ['x'] for name, *_ in rows}))
  assert [name for name, (split, _) in trees.items('m3p_coco', tmp_path).items()
          if split == 'test'] == ['9.jpg', '8.jpg']
  trees.write(tmp_path / 'test1k_ids.txt', '8', '3')
  with pytest.raises(errors.UserError, match="'3' is no image of the test"):
    trees.items('coco', tmp_path)


def test_stair_beside_its_tokenized_copy(tmp_path, caplog):
  trees.karpathy(tmp_path / 'dataset_coco.json', [
      ('2.jpg', 2, 'val'), ('1.jpg', 1, 'test')])
  for split, ids in (('train', ['1']), ('val', [2, 99])):
    for ending in ('', '_tokenized'):
      trees.write(
          tmp_path / 'stair' / f'stair_captions_v1.2_{split}{ending}.json',
          json.dumps({'annotations': [
              {'image_id': n, 'caption': f'文{ending}{n}'} for n in ids]}))
  _hide(tmp_path / 'stair', 'stair_captions_v1.2_train.json')
  assert trees.items('stair', tmp_path) == {
      '2.jpg': ('validation', [('ja', '文2')]),
      '1.jpg': ('test', [('ja', '文1')])}
  assert 'dataset_coco.json: 1 images, the first 99' in caplog.text
  trees.write(tmp_path / 'stair_captions_v1.1_val.json', '{}')
  with pytest.raises(errors.UserError, match=r'v1\.2_val.*v1\.1_val.*one of'):
    trees.items('stair', tmp_path)


def test_captions_of_m3p_in_the_order_of_the_list(tmp_path, caplog):
  trees.karpathy(tmp_path / 'dataset_flickr30k.json', [
      ('9.jpg', 9, 'test'), ('1.jpg', 1, 'test')])
  (tmp_path / 'uvl_captions').mkdir()
  for code in ('en', 'xx'):
    (tmp_path / 'uvl_captions' / f'flicker.{code}.pkl').write_bytes(
        pickle.dumps({'1.jpg': ['a'], 'no.jpg': ['b'], '9.jpg': ['c']}))
  _hide(tmp_path / 'uvl_captions', 'flicker.en.pkl')
  assert list(trees.items('m3p_flickr30k', tmp_path)) == ['9.jpg', '1.jpg']
  assert "language 'xx' is unknown" in caplog.text
  assert "dataset_flickr30k.json: 1 images, the first 'no.jpg'" in caplog.text


def _iglue(root):
  """Writes what IGLUE's repository has of retrieval."""
  root /= 'datasets'
  rows = [{'sentences': ['{} 7'], 'img_path': '7.jpg'},
          {'sentences': ['{} 5'], 'img_path': 'COCO_val2014_000000000005.jpg'}]

  def write(path, code, *rows):
    trees.jsonl(path, *(row | {'sentences': [
        text.format(code) for text in row['sentences']]} for row in rows))

  for code in ('de', 'zh'):
    folder = root / 'xFlickrCO' / 'annotations' / code
    write(folder / 'test.jsonl', code, *rows)
    write(folder / 'train_1.jsonl', code, {
        'sentences': ['few'], 'img_path': '1.jpg'})
    write(folder / 'train_100.jsonl', code, {
        'sentences': ['{} many'], 'img_path': '1.jpg'})
    _hide(folder, 'test.jsonl', 'train_100.jsonl')
    write(root / 'xFlickrCO' / 'annotations_machine-translate' / code
          / 'test_gmt.jsonl', 'by machine', *rows)
    write(root / 'flickr30k' / 'annotations_machine-translate'
          / f'valid-{code}_gmt.jsonl', code, rows[1], rows[0])
    for ending, place in (('', 'annotations'),
                          ('_gmt', 'annotations_machine-translate')):
      trees.jsonl(root / 'wit' / place / f'test_{code}{ending}.jsonl', *(
          {'wit_ix': f'wit-test_{n}', 'caption_reference_description': text}
          for n, text in ((3, f'{code}{ending}'), (1, None))))
  write(root / 'flickr30k' / 'annotations' / 'valid_ann.jsonl', 'en', *rows)
  trees.jsonl(root / 'wit' / 'annotations' / 'val_en.jsonl', {
      'wit_ix': 'wit_2', 'caption_reference_description': 'text'})
  # Other tasks of the repository.
  trees.jsonl(root / 'nlvr2' / 'annotations' / 'dev-id_gmt.jsonl', {'x': 1})
  trees.jsonl(root / 'XVNLI' / 'annotations' / 'en' / 'test.jsonl', {'x': 1})


@pytest.mark.parametrize('place', ['', 'datasets', 'datasets/{}',
                                   'datasets/{}/annotations'])
def test_iglue(tmp_path, place, caplog):
  _iglue(tmp_path)
  names = ['7.jpg', 'COCO_val2014_000000000005.jpg']
  items = trees.items('xflickrco', tmp_path / place.format('xFlickrCO'))
  assert list(items) == [*names, '1.jpg']
  assert items['7.jpg'] == ('test', [('de', 'de 7'), ('zh_CN', 'zh 7')])
  assert items['1.jpg'] == ('train', [('de', 'de many'), ('zh_CN', 'zh many')])
  items = trees.items('iglue_flickr30k', tmp_path / place.format('flickr30k'))
  assert list(items) == names
  translated = [] if place.endswith('annotations') else [
      ('de', 'de 7'), ('zh_CN', 'zh 7')]
  assert items['7.jpg'] == ('validation', [('en', 'en 7'), *translated])
  assert trees.items('iglue_wit', tmp_path / place.format('wit')) == {
      'wit_2': ('validation', [('en', 'text')]),
      'wit-test_3': ('test', [('de', 'de'), ('zh_CN', 'zh')]),
      'wit-test_1': ('test', [('de', ''), ('zh_CN', '')])}
  assert not caplog.records


def test_languages_that_are_lost_are_named(tmp_path, caplog):
  row = {'image/locale': 'en', 'en': {'caption': ['a\nb', '']}}
  row |= {code: {'caption': [code]} for code in (
      'quz', 'mi', 'fil', 'no', 'iw', 'he')}
  trees.jsonl(tmp_path / 'captions.jsonl', *(
      {'image/key': key} | row for key in ('0b', '0a')))
  folder = _prepare(tmp_path, 'xm3600', tmp_path, ['0a', '0b'], max_bad=0.5)
  for code in ('quz', 'mi'):
    assert f"language '{code}' is unknown and left out" in caplog.text
  pictures, captions = store.read_image_text(
      tmp_path / 'data', 'xm3600', 'test')
  assert pictures.image_ids == ['0b', '0a']
  assert list(zip(captions.languages, captions.texts, strict=True))[:5] == [
      ('en', 'a b'), ('fil', 'fil'), ('nb', 'no'), ('he', 'iw'), ('he', 'he')]
  assert json.loads((folder / 'manifest.json').read_text())['skipped'] == {
      'empty caption': 2}


def test_hidden_files_and_packed_copies_are_no_text(tmp_path):
  trees.write(tmp_path / 'de' / 'AA' / 'wiki_00', 'Ein Satz.')
  trees.write(tmp_path / 'de' / 'AA' / 'wiki_00.gz', 'Ein Satz.')
  trees.write(tmp_path / 'zh.txt', '一只猫。')
  trees.write(tmp_path / 'zh.txt.gz', '一只猫。')
  _hide(tmp_path / 'de' / 'AA', 'wiki_00')
  _hide(tmp_path, 'zh.txt')
  assert [item.text for item in trees.items('text', tmp_path)] == [
      'Ein Satz.', '一只猫。']


@pytest.mark.parametrize('name', ['butd_tsv', 'milvlg_npz', 'mmf_npy'])
def test_hidden_files_are_no_features(tmp_path, name):
  getattr(writers, name)(
      tmp_path, [writers.image(str(i), seed=i, feature_dim=4) for i in (1, 2)])
  (path,) = {file.parent for file in tmp_path.rglob('*') if file.is_file()}
  _hide(path, *(file.name for file in path.iterdir()))
  found = source.RegionSource(name, path)
  places = found.index.match(['1', '2'])
  assert len(places) == 2 and not found.unused(places.values())
  found.close()


@pytest.fixture
def published(tmp_path, monkeypatch):
  """Returns the test images of a list, prepared in shards of three."""
  monkeypatch.setattr(builder.ImageTextBuilder, 'shard_items', 3)
  rows = [(f'COCO_val2014_{1000 + 7 * i:012}.jpg', 1000 + 7 * i, 'test')
          for i in range(10)]
  train = [(f'COCO_train2014_{i:012}.jpg', i, 'train') for i in range(9)]
  trees.karpathy(tmp_path / 'raw' / 'dataset_coco.json', rows + train, 7)
  return rows, train


def test_protocols_follow_the_published_list(published, tmp_path):
  rows, train = published
  names = [name for name, *_ in rows]
  _prepare(tmp_path, 'coco', tmp_path / 'raw',
           [str(number) for _, number, _ in train + rows])
  loaded = evaluation_set.load(tmp_path / 'data', 'coco', 'test', ['en'], 24)
  assert loaded.image_ids == names and not loaded.left_out
  captions = loaded.captions['en']
  for protocol, folds in (('coco-1k', 1), ('coco-5x1k', 5), ('coco-5k', 1),
                          ('m3p-pad5', 1)):
    trials = protocols.trials(protocol, 'en', 10, captions)
    assert [[names[i] for i in trial.pictures] for trial in trials] == [
        list(fold) for fold in np.split(np.array(names), folds)]
    # Of seven captions, the first five as they were written.
    assert [captions.texts[i] for trial in trials for i in trial.captions] == [
        f'{name} {i}' for name in names for i in range(5)]
  # Training rows are cut from neighbours: these are in no order of content.
  pictures, _ = store.read_image_text(tmp_path / 'data', 'coco', 'train')
  assert sorted(pictures.image_ids) == [name for name, *_ in train]
  assert pictures.image_ids != [name for name, *_ in train]


def test_pictures_that_were_left_out_are_a_deviation(published, tmp_path):
  rows, train = published
  _prepare(tmp_path, 'coco', tmp_path / 'raw',
           [str(number) for _, number, _ in train + rows[2:]], max_bad=0.5)
  loaded = evaluation_set.load(tmp_path / 'data', 'coco', 'test', ['en'], 24)
  assert (len(loaded.image_ids), loaded.left_out) == (8, 2)
  assert protocols.get('coco-1k').deviations(1_000, loaded.left_out) == [
      'preparation left 2 of its pictures out']
  _prepare(tmp_path, 'coco', tmp_path / 'raw',
           [str(number) for _, number, _ in train + rows], limit=9)
  loaded = evaluation_set.load(tmp_path / 'data', 'coco', 'test', ['en'], 24)
  assert loaded.left_out == 10 - len(loaded.image_ids) > 0
