"""Properties of code-switching on made-up captions and dictionaries."""

import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import code_switch
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.dictionaries import __main__ as coverage_command
from tests import toy

SENTENCES = (
    'red fire engine', '(red apple), big dog', 'mouse dog', 'big red house.',
    '', 'fire, engine', 'fire engine apple red red house dog', '- red')
EVERY = code_switch.Settings(rate=1.0)
ONE = code_switch.Settings(mode='one')


def _words(sentences) -> store.Words:
  rows = toy.caption_record([('en', text) for text in sentences])

  def ragged(part):
    return tf.RaggedTensor.from_row_lengths(
        tf.constant(sum((row[f'{part}_ids'] for row in rows), []), tf.int32),
        tf.constant(sum((row[f'{part}_lengths'] for row in rows), []),
                    tf.int64))

  splits = np.cumsum([0] + [len(row['keys']) for row in rows])
  return store.Words(
      tf.constant(splits, tf.int64),
      tf.constant(sum((row['keys'] for row in rows), []), tf.int64),
      ragged('word'), ragged('prefix'), ragged('suffix'))


def _dictionary(languages=('de',), shuffle_seed=-1):
  return dictionaries.load(toy.data_dir() / dictionaries.FOLDER, languages,
                           shuffle_seed=shuffle_seed)


def _switch(settings, seed=0, sentences=SENTENCES, is_source=None):
  switched = code_switch.switch(
      _words(sentences), _dictionary(), seed=tf.constant([seed, 0]),
      settings=settings,
      is_source_B=tf.constant(is_source or [True] * len(sentences)))
  return [toy.decode(ids) for ids in switched.to_list()]


def _plain(sentences=SENTENCES):
  return [text.replace(' ', '') for text in sentences]


def test_every_word_with_a_translation_is_replaced_at_rate_1():
  found = [text.replace('ROT', 'R') for text in _switch(EVERY)]
  assert found == [
      'RLOESCHZUG', '(RAPFEL),bigdog', 'mousedog', 'GRH.', '',
      # Punctuation stands between "fire" and "engine": no phrase.
      'FEUER,engine', 'LOESCHZUGAPFELRRHAUSdog', '-R']


def test_nothing_changes_at_rate_0():
  assert _switch(code_switch.Settings(rate=0.0)) == _plain()
  assert _switch(code_switch.Settings(
      rate=1.0, sentence_rate=0.0)) == _plain()
  assert [toy.decode(ids) for ids in
          store.unswitched(_words(SENTENCES)).to_list()] == _plain()


@pytest.mark.parametrize('settings', [
    EVERY, ONE, code_switch.Settings(rate=0.5, language_per='word')])
def test_untranslatable_words_never_change(settings):
  sentences = ('mouse dog', 'Big (dog)!', 'dog', '... engine, - mouse') * 20
  assert _switch(settings, 0, sentences) == _plain(sentences)


def test_captions_in_other_languages_stay():
  is_source = [False] * len(SENTENCES)
  assert _switch(EVERY, is_source=is_source) == _plain()


def test_mode_one_replaces_exactly_one():
  sentences = ('red mouse apple dog house.', 'apple', 'dog fire engine red')
  places = set()
  for found in _switch(ONE, 0, sentences * 30):
    # A replaced word or phrase is one run of capitals.
    runs = ''.join(c if c.isupper() else ' ' for c in found).split()
    assert len(runs) == 1, found
    places.add(found.replace('ROT', 'R'))
  assert {'Rmouseappledoghouse.', 'redmouseAPFELdoghouse.',
          'redmouseappledogHAUS.', 'dogLOESCHZUGred',
          'dogfireengineR'} <= places


def test_rate_is_the_share_of_replaced_words():
  sentences = ('apple dog',) * 4000
  for rate in (0.3, 0.7):
    found = _switch(code_switch.Settings(rate=rate), sentences=sentences)
    share = np.mean([text == 'APFELdog' for text in found])
    assert abs(share - rate) < 0.03
  found = _switch(code_switch.Settings(rate=1.0, sentence_rate=0.4),
                  sentences=('apple house',) * 4000)
  assert set(found) == {'APFELHAUS', 'applehouse'}
  assert abs(np.mean([text == 'APFELHAUS' for text in found]) - 0.4) < 0.03


def test_better_translations_come_more_often():
  found = _switch(EVERY, sentences=('red',) * 4000)
  # The square of a uniform number is below 1/2 with probability 0.707.
  assert abs(found.count('ROT') / 4000 - 0.5**0.5) < 0.03


def test_equal_seeds_give_equal_captions():
  settings = code_switch.Settings(rate=0.5)
  assert _switch(settings, 5) == _switch(settings, 5)
  assert any(_switch(settings, 5) != _switch(settings, s) for s in range(5))


@pytest.mark.parametrize('per', code_switch.LANGUAGE_PER)
def test_one_language_a_caption_or_one_a_word(per):
  folder = toy.data_dir() / 'dictionaries' / per
  folder.mkdir(parents=True)
  for language in ('de', 'fr'):
    dictionaries.write({'apple': [toy.encode(language.upper())]},
                       folder / f'{language}.npz')
  switched = code_switch.switch(
      _words(('apple apple apple apple apple',) * 50),
      dictionaries.load(folder, ('de', 'fr')), seed=tf.constant([0, 0]),
      settings=code_switch.Settings(rate=1.0, language_per=per),
      is_source_B=tf.fill([50], True))
  texts = {toy.decode(ids) for ids in switched.to_list()}
  if per == 'caption':
    assert texts == {'DE' * 5, 'FR' * 5}
  else:
    assert len(texts) > 10


def test_the_releases_rule_asks_the_languages_that_have_the_word():
  folder = toy.data_dir() / 'dictionaries' / 'rule'
  folder.mkdir(parents=True)
  for language, entries in (
      ('de', {'apple': ['D', 'E'], 'fire engine': ['DF']}),
      ('fr', {'apple': ['F']}), ('it', {'house': ['I'], 'fire': ['X']})):
    dictionaries.write({word: [toy.encode(text) for text in found]
                        for word, found in entries.items()},
                       folder / f'{language}.npz')
  dictionary = dictionaries.load(folder, ('de', 'fr', 'it'))
  found = {}
  for rule in code_switch.RULES:
    switched = code_switch.switch_words(
        _words(('apple house dog', 'fire engine') * 3000), dictionary,
        seed=tf.constant([0, 0]), is_source_B=tf.fill([6000], True),
        settings=code_switch.Settings(
            rate=1.0, language_per='word', rule=rule))
    texts = [toy.decode(ids) for ids in switched.ids.to_list()]
    found[rule] = {text: texts.count(text) / 3000 for text in set(texts)}
  # Every word that any language has, in its languages equally often; the
  # longest phrase goes first, whoever has it.
  assert found['release'] == pytest.approx({
      'F': 0.5, 'D': 0.25, 'E': 0.25, 'I': 1.0, 'dog': 1.0, 'DF': 1.0,
      '': 1.0}, abs=0.03)
  assert abs(found['ours']['I'] - 1 / 3) < 0.03
  assert abs(found['ours']['D'] - 2**-0.5 / 3) < 0.03


def test_translations_are_shown_in_their_languages_colour():
  words = _words(SENTENCES[:3])
  dictionary = _dictionary(('fr', 'de'))
  switched = code_switch.switch_words(
      words, dictionary, seed=tf.constant([0, 0]),
      settings=EVERY, is_source_B=tf.constant([True, True, False]))
  lines = code_switch.show(
      switched, words.row_splits.numpy(), dictionary.languages, toy.decode)
  assert lines[2] == 'mouse dog'
  for line in lines[:2]:
    (language,) = set(re.findall(r'\[(..)\]$', line))
    colour = {'fr': 31, 'de': 32}[language]
    assert set(re.findall(r'\x1b\[(3\d)m', line)) == {str(colour)}
  # A phrase is one translation, and what is left stays as it is.
  assert re.fullmatch(
      r'\x1b\[3.m(ROT|R)\x1b\[0m \x1b\[3.mLOESCHZUG\x1b\[0m  \[..\]', lines[0])
  assert ' big dog  [' in lines[1]


def test_coverage_counts_words_but_articles():
  keys = [tokenizer_lib.word_key(word) for word in (
      'red', 'apple', 'dog', 'red', '', 'The', 'a')]
  counts = [len(toy.ENTRIES[word]) for word in ('red', 'apple')]
  assert code_switch.coverage(_dictionary(), np.array(keys)) == {
      'de': (0.75, np.mean(counts))}


def test_coverage_of_every_folder_and_of_all(tmp_path, monkeypatch, capsys):
  shutil.copytree(toy.data_dir() / 'english', tmp_path / 'english')
  for source, language, entries in (
      ('muse', 'de', {'red': ['ROT']}), ('muse', 'it', {'dog': ['cane']}),
      ('panlex', 'de', {'dog': ['HUND'], 'red': ['ROT', 'R']})):
    folder = tmp_path / 'dictionaries' / source
    folder.mkdir(parents=True, exist_ok=True)
    dictionaries.write({word: [toy.encode(text) for text in found]
                        for word, found in entries.items()},
                       folder / f'{language}.npz')
  monkeypatch.setattr(coverage_command.flags, 'FLAGS', types.SimpleNamespace(
      data_dir=str(tmp_path), coverage='english', languages=[]))
  coverage_command.main(['dictionaries'])
  head, german, italian = capsys.readouterr().out.splitlines()
  assert head.split() == ['language', 'muse', 'panlex', 'together',
                          'translations']
  captions = code_switch.read_english(str(tmp_path), 'english')[0]
  words = [re.sub(r'\W', '', word) for text in captions.texts
           for word in text.split()]
  red, dog = (100 * words.count(word) / len(words) for word in ('red', 'dog'))
  assert german.split() == [
      'de', f'{red:.1f}', '%', *[f'{red + dog:.1f}', '%'] * 2, '1.00']
  assert italian.split() == [
      'it', f'{dog:.1f}', '%', '-', f'{dog:.1f}', '%', '1.00']


def test_no_python_op_in_the_graph():
  dictionary, words = _dictionary(), _words(SENTENCES)

  @tf.function
  def switch(seed):
    return code_switch.switch(
        words, dictionary, seed=seed, settings=EVERY,
        is_source_B=tf.fill([len(SENTENCES)], True)).flat_values

  graph = switch.get_concrete_function(tf.constant([0, 0])).graph
  names = {op.type for op in graph.get_operations()}
  assert not any('PyFunc' in name for name in names)


def test_without_dictionaries_the_command_tells_how_to_make_them(
    tmp_path, monkeypatch):
  monkeypatch.setattr(code_switch.flags, 'FLAGS', types.SimpleNamespace(
      data_dir=str(tmp_path), languages=[]))
  with pytest.raises(errors.UserError, match=(
      f'input_pipeline.dictionaries --data_dir={tmp_path}')):
    code_switch.main(['code_switch'])
