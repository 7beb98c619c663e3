"""Search finds, describes and scores; its index is stored and renewed."""

import dataclasses
import json
import os
import shutil
import types

import numpy as np
from PIL import Image
import pytest

from input_pipeline import copies
from input_pipeline import errors
from m3p_jax import search
from m3p_jax.search import collection
from m3p_jax.search import commands
from m3p_jax.search import exported
from m3p_jax.search import index as index_lib
from tests import retrieval_data
from tests import toy

pytestmark = pytest.mark.usefixtures('float32')


class FakeTokenizer:
  """Two ids a word, inside the toy model's vocabulary."""
  sha256 = retrieval_data.TOKENIZER['sha256']
  vocab_size = retrieval_data.CONFIG.vocab_size

  def encode(self, text):
    return [4 + (hash_of(word) + i) % 490 for word in text.split()
            for i in range(2)]

  def split(self, text):
    return text.split()

  def decode(self, ids):
    return ' '.join(map(str, ids))


def hash_of(word):
  return sum(ord(c) * 31 ** i for i, c in enumerate(word))


class FakeExtractor:
  """Regions with the picture's mean brightness as their feature."""
  manifest = {'name': 'fake'}

  def __init__(self, name):
    del name

  def extract(self, images):
    rows = []
    for image in images:
      pixels = np.asarray(Image.open(image) if isinstance(image, str)
                          else image)
      rows.append(types.SimpleNamespace(
          features_RF=np.full((4, toy.FEATURE_DIM), pixels.mean(),
                              np.float16),
          boxes_R4=np.tile([0., 0., 10., 20.], (4, 1)),
          class_ids_R=np.ones(4, np.int32), height=pixels.shape[0],
          width=pixels.shape[1]))
    return rows


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return retrieval_data.make_workdir(tmp_path_factory.mktemp('search'))


@pytest.fixture
def searcher(workdir, monkeypatch):
  monkeypatch.setattr('input_pipeline.tokenizer.load', FakeTokenizer)
  monkeypatch.setattr(
      'input_pipeline.vision.extractors.GridExtractor', FakeExtractor)
  return search.load(workdir)


def test_search_ranks_the_whole_collection(searcher):
  results = searcher.search('ein roter Apfel', k=500)
  assert len(results) == 60 + 8 + 9
  scores = [result.score for result in results]
  assert scores == sorted(scores, reverse=True)
  assert all(-1.001 <= score <= 1.001 for score in scores)
  assert results[0].caption and results[0].image_id.startswith('picture')


def test_search_agrees_with_score(searcher):
  best = searcher.search('红 苹果', k=3)
  scores = searcher.score([best[0].image_id], ['红 苹果', 'x'])
  assert scores.shape == (1, 2)
  assert scores[0, 0] == pytest.approx(best[0].score, abs=1e-5)


def test_queries_of_any_length_and_script(searcher):
  for query in ('a', 'word ' * 1000, 'تفاحة حمراء', '🍎', 'a\nb'):
    assert len(searcher.search(query, k=2)) == 2


@pytest.mark.parametrize('query, k, message', [
    ('', 5, 'no words'), ('  ', 5, 'no words'), ('a', 0, 'k is 0')])
def test_queries_that_cannot_be_meant(searcher, query, k, message):
  with pytest.raises(errors.UserError, match=message):
    searcher.search(query, k)


def test_describe_ranks_captions_of_each_language(searcher, tmp_path):
  path = str(tmp_path / 'cat.png')
  Image.new('RGB', (30, 20), 'red').save(path)
  found = searcher.describe(path, languages=('en', 'de'), k=4)
  assert list(found) == ['en', 'de']
  for language, captions in found.items():
    scores = [caption.score for caption in captions]
    assert len(captions) == 4 and scores == sorted(scores, reverse=True)
    direct = searcher.score([path], [captions[0].text])
    assert direct[0, 0] == pytest.approx(scores[0], abs=1e-5), language


def test_files_arrays_and_names_mix(searcher, tmp_path):
  path = str(tmp_path / 'dark.png')
  Image.new('RGB', (30, 20), (9, 9, 9)).save(path)
  array = np.full((20, 30, 3), 9, np.uint8)
  scores = searcher.score([path, 'picture 3', array], ['a', 'b'])
  np.testing.assert_allclose(scores[0], scores[2], atol=1e-5)
  joint = searcher.score([path, 'picture 3'], ['a', 'b c d'], mode='joint')
  assert joint.shape == (2, 2) and np.isfinite(joint).all()


@pytest.mark.parametrize('mode', ['dual', 'joint'])
@pytest.mark.parametrize('images, texts', [
    ([], ['a']), (['picture 3'], []), ([], [])])
def test_nothing_to_score_is_an_empty_array(searcher, images, texts, mode):
  scores = searcher.score(images, texts, mode=mode)
  assert scores.shape == (len(images), len(texts))
  assert scores.dtype == np.float32


def test_nothing_to_embed_or_describe_is_empty(searcher):
  for vectors in (searcher.embed_texts([]), searcher.embed_images([]),
                  searcher.embed_texts((), language='en')):
    assert vectors.shape == (0, retrieval_data.CONFIG.embedding_dim)
    assert vectors.dtype == np.float32
  assert searcher.describe('picture 3', languages=()) == {}
  whole = searcher.describe('picture 3', k=10_000)['en']
  assert len(whole) == len(searcher.index.captions['en'])
  assert len(searcher.similar('picture 3', k=10_000)) == 77


def test_a_query_that_is_cut_is_told(searcher, caplog):
  searcher.search('word ' * 31)
  assert 'not read' not in caplog.text
  searcher.embed_texts(['word ' * 32, 'word'])
  assert '1 of 2 texts have more ids than the 62' in caplog.text


@pytest.mark.parametrize('call, message', [
    (lambda s: s.score(['picture 3'], 'a cat'), "texts is 'a cat'.* a list"),
    (lambda s: s.score('picture 3', ['a']), "images is 'picture 3'.* a list"),
    (lambda s: s.embed_texts('a cat'), "texts is 'a cat'"),
    (lambda s: s.score([], 'a', mode='joint'), "texts is 'a'"),
    (lambda s: s.score([], [], mode='both'), 'dual, joint'),
    (lambda s: s.score(['nowhere.jpg'], ['a']), r'nowhere\.jpg'),
    (lambda s: s.score(['picture 3'], ['a'], mode='both'), 'dual, joint'),
    (lambda s: s.describe('picture 3', languages=('xx',)), "'xx'.*de, en"),
])
def test_mistakes_are_named(searcher, call, message):
  with pytest.raises(errors.UserError, match=message):
    call(searcher)


def test_the_index_is_stored_and_used(searcher, workdir, monkeypatch):
  first = searcher.search('a', k=5)
  assert (workdir / 'search' / 'pairs_all' / 'vectors.npy').exists()
  again = search.load(workdir)
  # No second look at the pictures.
  monkeypatch.setattr(again._engine, 'embed_images', None)
  assert again.search('a', k=5) == first


@pytest.mark.parametrize('change', ['weights', 'broken'])
def test_a_stale_or_broken_index_is_renewed(searcher, workdir, change):
  expected = searcher.search('a', k=5)
  path = workdir / 'search' / 'pairs_all' / 'vectors.npy'
  if change == 'weights':
    shutil.rmtree(workdir / 'checkpoints')
    retrieval_data.save_checkpoint(workdir / 'checkpoints', step=7)
  else:
    path.write_bytes(path.read_bytes()[:100])
  before = path.stat().st_mtime_ns
  assert search.load(workdir).search('a', k=5) == expected
  assert path.stat().st_mtime_ns > before


def test_what_cannot_be_kept_is_told_before_it_is_made(
    searcher, tmp_path, caplog):
  (tmp_path / 'file').touch()
  source = dataclasses.replace(
      searcher.source, cache_dir=tmp_path / 'file' / 'search')
  told = []

  def embed(regions):
    told.append(caplog.text)
    return np.zeros((len(regions.mask_BR), 8), np.float32)

  source.index(searcher.weights, embed)
  assert 'every start computes the vectors anew' in told[0]
  with pytest.raises(errors.UserError, match=r'--out=.*nothing can be written'):
    exported.export(searcher, tmp_path / 'file' / 'index')


def test_one_split_can_be_searched(searcher, workdir):
  assert len(search.load(workdir, split='test').search('a', k=99)) == 9
  with pytest.raises(errors.UserError, match=r"split 'tset'.*all, train"):
    search.load(workdir, split='tset').search('a')


def test_a_bare_checkpoint_scores_and_needs_a_collection_to_search(
    searcher, workdir):
  bare = search.load(workdir / 'checkpoints' / '7')
  array = np.zeros((20, 30, 3), np.uint8)
  np.testing.assert_allclose(
      bare.score([array], ['a']), searcher.score([array], ['a']), atol=1e-5)
  with pytest.raises(errors.UserError, match='data_dir'):
    bare.search('a')
  found = search.load(
      workdir / 'checkpoints' / '7', data_dir=workdir.parent / 'data',
      dataset='pairs').search('a', k=3)
  assert [one.image_id for one in found] == [
      one.image_id for one in searcher.search('a', k=3)]


def test_another_tokenizer_or_extractor_is_refused(searcher, monkeypatch):
  monkeypatch.setattr(FakeTokenizer, 'sha256', 'cd')
  with pytest.raises(errors.UserError, match='tokenizer'):
    searcher.search('a')


def test_what_the_model_has_no_room_for_is_refused(
    searcher, workdir, monkeypatch):
  # JAX would read the last row of the table for every id beyond it.
  monkeypatch.setattr(FakeTokenizer, 'vocab_size', 501)
  with pytest.raises(errors.UserError, match='vocab_size is 500 .* 501 ids'):
    searcher.embed_texts(['a'])
  monkeypatch.setattr(FakeExtractor, 'manifest', {
      'name': 'fake', 'feature_dim': toy.FEATURE_DIM + 1})
  with pytest.raises(errors.UserError, match='feature_dim is 8 .* 9 numbers'):
    search.load(workdir).embed_images([np.zeros((20, 30, 3), np.uint8)])


@pytest.mark.parametrize(('found', 'message'), [
    ({'tokenizer': retrieval_data.TOKENIZER | {'vocab_size': 501}},
     'vocab_size is 500 .*checkpoints/7.*manifest.json has 501 ids'),
    ({'feature_extractor': {'feature_dim': 2048}},
     'region_feature_dim is 8 .* have 2,048 numbers')])
def test_a_collection_that_does_not_fit_is_refused(
    workdir, tmp_path, found, message):
  shutil.copytree(workdir.parent / 'data', tmp_path / 'data')
  retrieval_data.save_checkpoint(
      tmp_path / 'checkpoints', step=7, manifest={'languages': ['en', 'de']})
  path = tmp_path / 'data' / 'pairs' / 'manifest.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | found))
  with pytest.raises(errors.UserError, match=message):
    search.load(tmp_path / 'checkpoints', data_dir=tmp_path / 'data',
                dataset='pairs').similar('picture 1')


def test_the_command_prints_ranked_lines(searcher, workdir, capsys):
  del searcher  # Its fixture puts the toy tokenizer in place.
  commands.search(workdir, 'ein Hund', 4)
  lines = capsys.readouterr().out.strip().split('\n')
  assert "77 pictures, nearest to 'ein Hund'" in lines[0]
  assert [line.split()[0] for line in lines[2:]] == ['1', '2', '3', '4']


def test_the_command_prints_json(searcher, workdir, tmp_path, capsys):
  commands.search(workdir, 'ein Hund', 4, as_json=True)
  (line,) = capsys.readouterr().out.splitlines()
  found = json.loads(line)
  assert found['query'] == 'ein Hund' and found['num_pictures'] == 77
  assert [search.Result(**one) for one in found['pictures']] == (
      searcher.search('ein Hund', 4))
  # Of an exported folder, the same.
  exported.export(searcher, tmp_path / 'index')
  commands.search(tmp_path / 'index', 'ein Hund', 4, as_json=True)
  again = json.loads(capsys.readouterr().out)
  assert again.keys() == found.keys() and again['num_pictures'] == 77
  np.testing.assert_allclose(
      *([one['score'] for one in answer['pictures']]
        for answer in (again, found)), atol=1e-5)
  with pytest.raises(errors.UserError, match='top_k.* is an exported index'):
    commands.search(tmp_path / 'index', 'a', given=['evaluation.top_k'])


def _copy(workdir, tmp_path):
  """Returns a workdir and a config of its own, with copied data."""
  shutil.copytree(workdir.parent, tmp_path / 'copy', symlinks=True)
  return tmp_path / 'copy' / 'run', retrieval_data.make_config(
      tmp_path / 'copy' / 'data')


def test_words_are_searched_where_records_were_cut_off(
    searcher, workdir, tmp_path, caplog):
  found = searcher.search('a', 5)
  workdir, config = _copy(workdir, tmp_path)

  def load():
    return search.load(workdir, config=config)

  load().search('a', 5)  # Its index has the copy's place.
  for shard in (tmp_path / 'copy' / 'data').rglob('*.tfrecord*'):
    os.truncate(shard, shard.stat().st_size // 2)
  again = load()
  assert [one.image_id for one in again.search('a', 5)] == [
      one.image_id for one in found]
  assert 'is cut off' in caplog.text
  with pytest.raises(errors.UserError, match='is cut off'):
    again.search('a', 5, mode='joint')


def test_originals_are_named_and_small_copies_where_they_have_gone(
    searcher, workdir, tmp_path, capsys, caplog):
  del searcher  # Its fixture puts the toy tokenizer in place.
  workdir, config = _copy(workdir, tmp_path)
  folder = tmp_path / 'copy' / 'data' / 'pairs'
  for name in copies.FOLDERS:
    (folder / name).mkdir(exist_ok=True)
  file = tmp_path / 'my picture.png'
  image = Image.new('RGB', (300, 200))
  image.save(file)
  copies.keep(folder, 'picture 3', file, image)

  def found():
    return {result.image_id: result
            for result in search.load(
                workdir, config=config).search('a', k=99)}

  result = found()['picture 3']
  assert result.path == str(file)
  assert Image.open(result.thumbnail).size == (160, 107)
  assert found()['picture 4'].path == ''
  commands.search(workdir, 'a', 99, config=config)
  assert str(file) in capsys.readouterr().out
  assert 'not where' not in caplog.text
  file.unlink()
  assert found()['picture 3'].path == result.thumbnail
  commands.search(workdir, 'a', 99, config=config)
  assert 'of 77 pictures found are not where' in caplog.text


def test_data_prepared_again_are_read_again_in_the_same_process(
    searcher, workdir, tmp_path):
  del searcher  # Its fixture puts the toy tokenizer in place.
  shutil.copytree(workdir.parent, tmp_path / 'copy', symlinks=True)
  data = tmp_path / 'copy' / 'data' / 'pairs'

  def load():
    return search.load(tmp_path / 'copy' / 'run', data_dir=data.parent)

  before, open_page = load(), load()
  names = set(before.index.image_ids)
  assert set(open_page.index.image_ids) == names
  first = before.describe('picture 3', ('en',))
  shutil.rmtree(data)
  shutil.copytree(toy.data_dir() / 'english', data)
  manifest = json.loads(
      (workdir.parent / 'data' / 'pairs' / 'manifest.json').read_text())
  (data / 'manifest.json').write_text(json.dumps(
      manifest | {'counts': {'train': 20, 'validation': 4, 'test': 4}}))
  now = load()
  assert len(now.index.image_ids) == 28
  assert now.describe('picture 3', ('en',)) != first
  # Who has the old vectors in memory does not mix them with the new pictures.
  collection._open_once.cache_clear()
  with pytest.raises(errors.UserError, match='prepared again since'):
    open_page.search('a', mode='joint')


def test_another_number_format_makes_another_index(searcher, workdir):
  del searcher
  config = retrieval_data.make_config(workdir.parent / 'data')
  keys = []
  for dtype in ('float32', 'bfloat16'):
    config.model.dtype = dtype
    assert search.load(workdir, config=config, split='test').index
    keys.append(index_lib.read_manifest(
        workdir / 'search' / 'pairs_test')['made_by'])
  assert keys[0] != keys[1]


def test_an_exported_index_is_not_mixed_with_others(
    searcher, workdir, tmp_path):
  del searcher
  shutil.copytree(workdir.parent, tmp_path / 'copy', symlinks=True)
  copy = tmp_path / 'copy'
  made = search.load(copy / 'run', data_dir=copy / 'data')
  manifest = exported.export(made, tmp_path / 'index')
  # Where weights and data were copied to, they are the same.
  shutil.copytree(copy / 'run' / 'checkpoints', tmp_path / 'moved')
  again = search.load(tmp_path / 'index', checkpoint=tmp_path / 'moved' / '7')
  assert again.search('a', 3, mode='joint') == made.search('a', 3, mode='joint')
  assert manifest['num_pictures'] == 77
  path = copy / 'data' / 'pairs' / 'manifest.json'
  path.write_text(json.dumps(
      json.loads(path.read_text()) | {'options': 'others'}))
  other = search.load(tmp_path / 'index')
  assert other.search('a', 3) == made.search('a', 3)
  with pytest.raises(errors.UserError, match='prepared again, from other'):
    other.search('a', 3, mode='joint')
  shutil.rmtree(copy / 'run' / 'checkpoints')
  retrieval_data.save_checkpoint(
      copy / 'run' / 'checkpoints', step=7, config=dataclasses.replace(
          retrieval_data.CONFIG, mlp_width=16))
  with pytest.raises(errors.UserError, match='7 holds other weights'):
    search.load(tmp_path / 'index')
