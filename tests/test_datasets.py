"""Parsers of the packages' files, and properties of the real datasets."""

import collections
import functools
import importlib

import pytest

from configs import quickstart
from input_pipeline import builder
from input_pipeline import languages
from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.datasets import _readers
from input_pipeline.datasets import emoji
from input_pipeline.datasets import openclipart
from input_pipeline.datasets import tux_paint
from input_pipeline.datasets import udhr


@functools.cache
def _items(name, wanted=()):
  """Returns a dataset's items, without the extractor that a builder loads."""
  module = importlib.import_module(f'input_pipeline.datasets.{name}')
  made = module.Builder.__new__(module.Builder)
  made.options = builder.Options(languages=wanted)
  made.tokenizer = tokenizer_lib.load()
  return made.items()


def _fetched(name):
  folder = sources.cache_dir() / 'sources'
  return bool(list(folder.glob(f'{name}-*/.complete')))


@pytest.mark.parametrize('name', ['tux_paint', 'emoji', 'openclipart'])
def test_pictures(name):
  if name == 'openclipart' and not _fetched('openclipart-png'):
    pytest.skip('openclipart (156 MB) is not in the cache')
  items = _items(name)
  assert len(items) > 600
  ids = [item.image_id for item in items]
  assert len(ids) == len(set(ids))
  assert {item.split for item in items} == set(builder.SPLITS)
  splits = collections.defaultdict(set)
  for item in items:
    assert item.path.is_file()
    assert item.group
    splits[item.group].add(item.split)
    assert item.captions, item.image_id
    for code, text in item.captions:
      assert code in languages.codes()
      assert text == text.strip() != ''
  assert all(len(found) == 1 for found in splits.values())


def test_tux_paint_caption_is_in_one_split():
  owners = collections.defaultdict(set)
  for item in _items('tux_paint'):
    for caption in item.captions:
      owners[caption].add(item.split)
  assert all(len(splits) == 1 for splits in owners.values())


def test_tux_paint_has_the_evaluated_languages():
  items = [item for item in _items('tux_paint') if item.split == 'test']
  counts = collections.Counter(
      code for item in items for code, _ in item.captions)
  for code in quickstart.LANGUAGES:
    assert counts[code] > 0.5 * len(items), code
  assert counts['en'] == len(items)


def test_tux_paint_splits():
  captions = [f'caption {i}' for i in range(100)]
  splits = tux_paint.assign_splits(captions * 2)
  counts = collections.Counter(splits.values())
  assert counts == {'test': 20, 'validation': 10, 'train': 70}
  assert splits == tux_paint.assign_splits(captions[::-1])


def test_tux_paint_captions(tmp_path):
  path = tmp_path / 'stamp.txt'
  path.write_text('A red apple. \nde.utf8=Ein roter Apfel. \nfr.utf8=\n'
                  'ca@valencia.utf8=Una poma = roja.\nnonsense\n',
                  encoding='utf-8')
  assert tux_paint.read_captions(path) == {
      'en': 'A red apple.', 'de': 'Ein roter Apfel.',
      'ca@valencia': 'Una poma = roja.'}
  path.write_text('')
  assert tux_paint.read_captions(path) == {}
  assert tux_paint.group_name('A Red apple. ') == 'a red apple'


def test_a_shared_translation_stays_in_test(tokenizer):
  items = [
      builder.ImageItem(name, None, split, name, [('en', name), ('de', text)])
      # However it is written: composed or not.
      for name, split, text in (('a', 'train', 'e\u0301'), ('b', 'test', 'é'),
                                ('c', 'validation', 'é '))]
  assert [item.captions for item in tux_paint.drop_shared(
      items, tokenizer.normalise)] == [
      [('en', 'a')], [('en', 'b'), ('de', 'é')], [('en', 'c')]]


def test_emoji_captions_are_of_the_picture():
  by_id = {item.image_id: item for item in _items('emoji', ('en', 'zh_CN'))}
  captions = by_id['1f34e'].captions
  assert ('en', 'red apple') in captions
  assert {code for code, _ in captions} == {'en', 'zh_CN'}
  assert not any('1f3fb' in image_id for image_id in by_id)
  assert emoji._captions({'tts': ['cat'], 'default': ['cat', 'pet', 'tail']}
                         ) == ['cat', 'pet, tail']


@pytest.mark.parametrize(('title', 'cleaned'), [
    ('red_apple_01', 'red apple'), ('Apple (B and W)', 'Apple'),
    ('Clipart by Nicu Buculei - bee', 'bee'), ('01_2', ''), ('svg', ''),
    ('FlowerAndPot', 'Flower And Pot'), ('Tea &amp; milk', 'Tea & milk')])
def test_openclipart_titles(title, cleaned):
  assert openclipart.clean(title) == cleaned


def test_openclipart_metadata(tmp_path):
  path = tmp_path / 'a.svg'
  path.write_text(
      '<svg><metadata id="m"><rdf:RDF><cc:Work><dc:title>Red cat</dc:title>'
      '<dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>unsorted</rdf:li>'
      '<rdf:li>cat</rdf:li></rdf:Bag></dc:subject><dc:description>A cat that '
      'is red.</dc:description></cc:Work></rdf:RDF></metadata></svg>')
  found = openclipart.read_metadata(path)
  assert found == ('Red cat', ('cat',), 'A cat that is red.')
  assert openclipart.captions_of('Red cat', found) == [
      'Red cat', 'cat', 'A cat that is red.']
  for broken in ('', '<svg><metadata><a></metadata></svg>', '<metadata>'):
    path.write_text(broken)
    assert openclipart.read_metadata(path) == openclipart.Metadata()


def test_openclipart_title_of_a_series_gives_way_to_the_file_name():
  assert openclipart.choose_title('road/cycle_lane', 'Road Signs', 56) == (
      'cycle lane')
  assert openclipart.choose_title('a/cow_01', 'Cow', 2) == 'Cow'
  assert openclipart.choose_title('a/orso_architetto_01', 'Orso', 1) == ''


def test_udhr_splits_by_article():
  items = _items('udhr')
  counts = collections.Counter((item.language, item.split) for item in items)
  assert {code for code, _ in counts} >= set(quickstart.LANGUAGES)
  for code, _ in counts:
    for split in builder.SPLITS:
      assert counts[code, split], (code, split)
  assert len({item.text_id for item in items}) == len(items)
  assert any(item.text.startswith('All human beings are born free')
             for item in items if item.language == 'en')


def test_udhr_sentences_lose_nothing():
  text = 'One is here. Two; three: four! ' * 12 + 'The end has no stop'
  pieces = udhr.sentences(text)
  assert ' '.join(pieces) == text
  assert max(map(len, pieces)) <= 140
  chinese = '人人生而自由。' * 60
  assert ''.join(udhr.sentences(chinese)) == chinese
  assert udhr.sentences('') == []


def test_hashed_splits_are_stable():
  splits = [_readers.split_by_hash(f'group {i}') for i in range(2000)]
  counts = collections.Counter(splits)
  assert 60 < counts['test'] < 140
  assert 60 < counts['validation'] < 140
  # Pinned: a picture never moves to another split.
  assert splits[:40].count('train') == 36
