"""A real small run: searched in all modes, explained, exported, documented."""

import doctest
import json
import os
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from m3p_jax import search
from m3p_jax.search import commands
from m3p_jax.search import exported
from m3p_jax.search import inputs
from m3p_jax.search import rankings
from m3p_jax.serve import finder
from m3p_jax.serve import server
from m3p_jax.serve import views
from tests import small_search

pytestmark = pytest.mark.usefixtures('float32')

TEXTS = ('a red apple.', '赤いりんご、バナナ', 'แมวสีส้ม', '한국어 단어',
         'تفاحة حمراء 🍎', 'Wörter mit „Zeichen“', 'x' * 300)


@pytest.fixture(scope='module')
def searcher(small_run):
  return search.load(small_run)


def test_each_mode_finds_what_it_scores_highest(searcher):
  query = 'ein roter Apfel'
  names = searcher.index.image_ids
  joint = searcher.score(names, [query], mode='joint')[:, 0]
  found = searcher.search(query, k=20, mode='joint')
  assert found[0].image_id == names[joint.argmax()]
  np.testing.assert_allclose(
      [one.score for one in found], np.sort(joint)[::-1], atol=1e-4)
  dual = searcher.search(query, k=20)
  assert dual[0].image_id == '1f34e.webp' and dual[0].match is None
  ranked = searcher.search(query, k=20, mode='rerank')
  assert {one.image_id for one in ranked[:5]} == {
      one.image_id for one in dual[:5]}
  assert [one.match is None for one in ranked] == [False] * 5 + [True] * 15
  with pytest.raises(errors.UserError, match='dual, rerank, joint'):
    searcher.search(query, mode='both')


# A page that finds a picture and opens it, in a process that has no TensorFlow.
_WORDS_ALONE = '''
import sys
sys.modules.update(tensorflow=None, tensorflow_datasets=None)
from m3p_jax import command_line, summary
from m3p_jax.search import commands
from m3p_jax.serve import app, finder, server
page = finder.Finder(commands.from_flags(sys.argv[1]))
page.warm_up()
query = "ein roter Apfel"
print(page.searcher.search(query)[0].image_id)
print(*next(page.show(page.searcher.index.key(0), query, [])))
'''


def test_words_are_searched_without_tensorflow(searcher, small_run):
  searcher.search('a cat')  # Its index is stored from here on.
  result = subprocess.run(
      [sys.executable, '-c', _WORDS_ALONE, small_run], capture_output=True,
      text=True, check=False)
  assert result.stdout == '1f34e.webp\ndetail\n', result.stderr


def test_a_page_says_which_files_have_gone(
    searcher, small_run, monkeypatch, caplog):
  class Ended(Exception):
    pass

  def end(seconds):
    raise Ended(seconds)

  monkeypatch.setattr(server.time, 'sleep', end)
  path = small_run.parent / 'raw' / '1f34e.webp'
  moved = path.rename(path.with_suffix('.moved'))
  try:
    with pytest.raises(Ended):
      server._keep_ready([finder.Finder(searcher)], finder.Finder, 0)
  finally:
    moved.rename(path)
  assert '1 of 20 pictures are not where they were read from' in caplog.text


def test_a_picture_is_most_like_itself(searcher, small_run):
  path = str(small_run.parent / 'raw' / '1f451.webp')
  read = searcher.read(path)
  best = searcher.similar(read, k=3)[0]
  assert best.image_id == '1f451.webp' and best.cosine > 0.999
  assert searcher.describe(read, ('de',))['de'][0].text == (
      'eine königliche Krone')


@pytest.mark.parametrize('text', TEXTS)
def test_attention_is_shared_out_among_the_regions(searcher, text):
  explained = searcher.explain('1f34e.webp', text)
  weights_WR = explained.weights_WR
  assert weights_WR.shape == (
      len(explained.words), len(explained.boxes_R4))
  np.testing.assert_allclose(weights_WR.sum(1), 1, atol=1e-5)
  assert (weights_WR >= 0).all() and weights_WR.std() > 0
  boxes = explained.boxes_R4
  assert (boxes >= 0).all() and (boxes <= 1).all()
  assert 0 <= explained.match <= 1
  with pytest.raises(errors.UserError, match='no words'):
    searcher.explain('1f34e.webp', ' ')


@pytest.mark.parametrize('text', TEXTS)
def test_words_are_made_of_the_tokens_of_the_text(searcher, tokenizer, text):
  words = inputs.Reader(searcher.weights).words(text)
  ends = [word.end for word in words]
  assert [word.start for word in words] == [1, *ends[:-1]]
  assert ends[-1] - 1 == len(tokenizer.encode(text))
  joined = ''.join(word.text for word in words)
  if all(map(inputs.has_spaces, text.split())):
    assert joined == text.replace(' ', '')
  else:
    assert len(words) > len(text.split())


@pytest.mark.parametrize('query', ['cat \ud83d', 'caf\udce9'])
def test_a_query_that_is_no_utf_8_is_told(searcher, query):
  with pytest.raises(errors.UserError, match='not UTF-8: .*\\\\ud'):
    searcher.search(query)
  # The page says so, in what can be sent.
  (notice,) = finder.Finder(searcher).search(
      finder.Asked(query), rankings.Wanted())
  assert 'Nothing to search for' in notice['results'].encode().decode()


def test_an_exported_index_searches_like_the_run(searcher, tmp_path, caplog):
  manifest = exported.export(searcher, tmp_path / 'index')
  vectors = np.load(tmp_path / 'index' / 'vectors.npy')
  assert vectors.shape == (
      manifest['num_pictures'], manifest['embedding_dim'])
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
  lines = (tmp_path / 'index' / 'pictures.jsonl').read_text().splitlines()
  captions = {line['image_id']: line['captions']
              for line in map(json.loads, lines)}
  assert captions['1f415.webp'] == {
      'en': ['a brown dog'], 'de': ['ein brauner Hund'], 'ja': ['茶色い犬']}

  again = search.load(tmp_path / 'index')
  for mode in ('dual', 'rerank'):
    assert again.search('茶色い犬', 4, mode=mode) == searcher.search(
        '茶色い犬', 4, mode=mode)
  assert again.describe('1f415.webp', ('en',)) == searcher.describe(
      '1f415.webp', ('en',))
  # A page of it finds by words where the records have gone, and says so.
  alone = finder.Finder(search.load(tmp_path / 'index', data_dir=tmp_path))
  with caplog.at_level('WARNING', 'absl'):
    alone.warm_up_pictures()
  assert 'nothing but words' in caplog.text and 'not there' in caplog.text
  *_, last = alone.search(finder.Asked('茶色い犬'), rankings.Wanted())
  assert last['results'].count('data-key=') > 0
  with pytest.raises(errors.UserError, match='not there'):
    list(alone.show(alone.searcher.index.key(0), '', ['en']))
  # Nothing but a key is one, however it could be read.
  index, key = alone.searcher.index, alone.searcher.index.key(3)
  assert index.find(key) == 3
  assert (tmp_path / 'index' / 'columns.npz').exists()
  for other in ('', '-1', 'x' * 16, key[1:], f'0{key}', f'0x{key[2:]}',
                f' {key[1:]}', f'{key}\n', 'f' * 16):
    assert index.find(other) is None, other
  with pytest.raises(errors.UserError, match='exists; allowed: a new folder'):
    exported.export(searcher, tmp_path / 'index')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['index']


def _swap_lines(content):
  first, second, *rest = content.splitlines(keepends=True)
  return b''.join([second, first, *rest])


@pytest.mark.parametrize('file, change, message', [
    ('manifest.json', lambda _: b'{"format": "other"}', "'m3p_jax index 1'"),
    ('manifest.json', lambda old: old[:40], 'manifest.json cannot be read'),
    ('manifest.json', lambda old: old.replace(b'"embedding_dim": 32',
                                              b'"embedding_dim": 64'),
     r'64.* but .* with|width .* 32'),
    ('pictures.jsonl', lambda _: b'', 'has 20 rows, pictures.jsonl 0'),
    ('pictures.jsonl', _swap_lines, 'pictures.jsonl was changed since'),
    ('vectors.npy', lambda old: old[:-4], 'vectors.npy cannot be read'),
    ('vectors.npy', lambda old: old[:-1] + bytes([old[-1] ^ 1]),
     'vectors.npy was changed since')])
def test_what_does_not_fit_is_named(searcher, tmp_path, file, change, message):
  exported.export(searcher, tmp_path / 'index')
  path = tmp_path / 'index' / file
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(errors.UserError, match=message) as told:
    search.load(tmp_path / 'index').search('a')
  assert '\n' not in str(told.value)


def test_an_exported_index_is_searched_with_its_own_weights(
    searcher, tmp_path):
  folder = tmp_path / 'index'
  manifest = exported.export(searcher, folder)
  (folder / 'manifest.json').write_text(json.dumps(
      manifest | {'checkpoint': str(tmp_path / 'gone')}))
  with pytest.raises(errors.UserError, match='load.path, checkpoint=DIR'):
    search.load(folder)
  found = search.load(folder, checkpoint=searcher.weights.path)
  assert found.search('a red apple', 1) == searcher.search('a red apple', 1)
  other = tmp_path / 'run' / 'checkpoints' / '7'
  shutil.copytree(searcher.weights.path, other)
  with pytest.raises(errors.UserError, match=r'are \[7, 32\].* \[60, 32\]'):
    search.load(folder, checkpoint=other.parents[1])


def test_the_commands_print_and_write(small_run, tmp_path, capsys):
  commands.search(small_run, '速い車', 2)
  lines = capsys.readouterr().out.strip().split('\n')
  assert lines[0] == "20 pictures, nearest to '速い車' (dual):"
  assert 'a fast car' in lines[2] and lines[2].split()[0] == '1'
  commands.export_index(small_run, tmp_path / 'out')
  assert '20 pictures, 32 numbers each, captions in 3 languages' in (
      capsys.readouterr().out)


def test_an_address_that_cannot_be_had_is_said_before_anything_is_loaded():
  if not os.environ.get('CI'):
    pytest.importorskip('fastapi')
  with pytest.raises(errors.UserError, match='--host=192.0.2.1 --port=0'):
    server.serve('not a workdir', host='192.0.2.1', port=0)


@pytest.mark.parametrize('query, words', [
    ('ein roter Apfel', 'looks like German'), ('猫', 'looks like Japanese'),
    ('りんごを食べる', 'looks like Japanese'),
    ('orange', 'looks like English or German'),
    ('xyz', ''), ('кошка', ''), ('🍎!', '')])
def test_a_language_is_guessed_no_further_than_known(query, words):
  guesser = inputs.Guesser({
      language: [captions[i] for captions in small_search.PICTURES.values()]
      for i, language in enumerate(small_search.LANGUAGES)})
  assert str(guesser.guess(query)) == words


def test_a_file_of_a_pictures_name_does_not_take_its_place(
    searcher, tmp_path, monkeypatch):
  page = finder.Finder(searcher)
  key = searcher.index.key(searcher.index.numbers['1f408.webp'])
  monkeypatch.chdir(tmp_path)
  before = list(page.show(key, 'a cat', ('en',)))
  described = searcher.describe('1f418.webp')
  Image.new('RGB', (64, 64)).save('1f408.webp')
  os.mkdir('1f418.webp')
  assert list(page.show(key, 'a cat', ('en',))) == before
  assert searcher.describe('1f418.webp') == described
  with pytest.raises(errors.UserError, match='no regular file: .*1f418.webp'):
    searcher.describe(tmp_path / '1f418.webp')


def test_the_documented_examples_run(small_run, tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'quickstart').symlink_to(small_run)
  shutil.copy(small_run.parent / 'raw' / '1f408.webp', tmp_path / 'my_cat.jpg')
  monkeypatch.chdir(tmp_path)
  for module in (search, inputs, views):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed, module.__name__
