"""Dictionaries that users bring, from their files to translations."""

import os
import sqlite3

import numpy as np
import pytest

from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import records
from input_pipeline.dictionaries import panlex
from input_pipeline.dictionaries import ranking
from input_pipeline.dictionaries import readers


def _pairs(source, path, language):
  files = readers.files(source, str(path))[language]
  return {phrase: set(found) for phrase, found in readers.collect(
      source, language, files).items()}


def test_muse(tmp_path, caplog):
  (tmp_path / 'en-de.txt').write_text(
      'cat katze\ncat\tKatze\nsports car\tSportwagen\n')
  (tmp_path / 'de-en.txt').write_text('hund dog\nhund hound\n')
  (tmp_path / 'en-de.0-5000.txt').write_text('not read\n')
  (tmp_path / 'en-zh.txt').write_text('cat 猫\n')
  (tmp_path / 'en-no.txt').write_text('cat katt\n')
  (tmp_path / 'fr-es.txt').write_text('chat gato\n')
  assert set(readers.files('muse', str(tmp_path))) == {'de', 'zh_CN', 'nb'}
  assert _pairs('muse', tmp_path, 'de') == {
      'cat': {'katze', 'Katze'}, 'sports car': {'Sportwagen'},
      'dog': {'hund'}, 'hound': {'hund'}}
  assert _pairs('muse', tmp_path, 'zh_CN') == {'cat': {'猫'}}
  (tmp_path / 'en-no.txt').write_text('cat katt\nhot dog pølse\n')
  assert _pairs('muse', tmp_path, 'nb') == {'cat': {'katt'}}
  assert "left out 1 lines that are not two columns, as line 2: 'hot dog" in (
      caplog.text)


def test_table_of_two_columns(tmp_path):
  (tmp_path / 'ko.tsv').write_text('red apple\t빨간 사과\n\nThe dog\t개\n')
  assert _pairs('tsv', tmp_path, 'ko') == {
      'red apple': {'빨간 사과'}, 'dog': {'개'}}


def _write_panlex_lite(path):
  """Three meanings; the best source says Hund, a poor one Köter and Katze."""
  with sqlite3.connect(path) as database:
    database.executescript("""
        CREATE TABLE lv (lv integer, uid text);
        CREATE TABLE ex (ex integer, lv integer, tt text);
        CREATE TABLE dnx (mn integer, ex integer, uq integer, ap integer,
                          ui integer);
        INSERT INTO lv VALUES (1, 'eng-000'), (2, 'deu-000'), (3, 'cmn-000'),
                              (6, 'cmn-001'), (7, 'hbs-001'), (8, 'tgl-000'),
                              (9, 'srp-001');
        INSERT INTO ex VALUES (1, 1, 'dog'), (2, 2, 'Hund'), (3, 2, 'Köter'),
                              (4, 3, '狗'), (5, 2, 'Katze'), (6, 6, '犬'),
                              (7, 7, 'ker'), (8, 8, 'aso'), (9, 9, 'pas');
        INSERT INTO dnx VALUES (1, 1, 2, 0, 0), (1, 3, 2, 0, 0),
                               (2, 1, 7, 0, 0), (2, 2, 7, 0, 0),
                               (2, 4, 7, 0, 0), (3, 5, 9, 0, 0),
                               (2, 6, 7, 0, 0), (2, 7, 7, 0, 0),
                               (2, 8, 7, 0, 0), (2, 9, 9, 0, 0);""")
  database.close()


def test_panlex_lite(tmp_path):
  path = tmp_path / 'panlex_lite.db'
  _write_panlex_lite(path)
  files = readers.files('panlex', str(path))
  assert set(files) == {'de', 'zh_CN', 'zh_TW', 'sr_Latn', 'fil', 'sh'}
  pairs = readers.collect('panlex', 'de', files['de'])
  assert {text: found.forward for text, found in pairs['dog'].items()} == {
      'Hund': 0, 'Köter': 1}
  for language, wanted in (('zh_CN', {'狗'}), ('zh_TW', {'犬'}),
                           ('fil', {'aso'}), ('sr_Latn', {'pas', 'ker'})):
    assert _pairs('panlex', path, language) == {'dog': wanted}
  assert panlex.codes('pt_BR') == ('por-001',)
  data = path.read_bytes()
  for damaged in (data[:5000], data[:100] + bytes(4000) + data[4100:], b'x'):
    path.write_bytes(damaged)
    with pytest.raises(errors.UserError, match=r'panlex_lite\.db'):
      _pairs('panlex', path, 'de')


def test_panlex_tables(tmp_path):
  header = 'id\tlangvar\ttxt\ttxt_degr\tmeaning\n'
  (tmp_path / 'eng.tsv').write_text(
      header + '1\teng-000\tdog\tdog\t7\n2\teng-000\t"cat\tcat\t8\n')
  (tmp_path / 'deu.tsv').write_text(
      header + '3\tdeu-000\tHund\thund\t7\n4\tdeu-000\tMaus\tmaus\t9\n')
  assert _pairs('panlex', tmp_path, 'de') == {'dog': {'Hund'}}
  (tmp_path / '._deu.tsv').write_bytes(b'\0\5\xff')  # As macOS leaves them.
  # As published: numbers of varieties, their codes last, several in a table.
  header = 'id\tlangvar\ttxt\ttxt_degr\tmeaning\tlangvar_uid\n'
  (tmp_path / 'eng.tsv').write_text(header + '1\t187\tdog\t\t7\teng-000\n')
  (tmp_path / 'abh.tsv').write_text(header)
  (tmp_path / 'cmn.tsv').write_text(header + '5\t1627\t狗\t\t7\tcmn-000\n'
                                    '6\t1836\t犬\t\t7\tcmn-001\n')
  assert set(readers.files('panlex', str(tmp_path))) == {
      'de', 'zh_CN', 'zh_TW'}
  assert _pairs('panlex', tmp_path, 'zh_TW') == {'dog': {'犬'}}
  (tmp_path / 'deu.tsv').write_text('vocab\t639-3\nHund\tdeu\n')
  with pytest.raises(errors.UserError, match=r'deu\.tsv: columns .vocab'):
    _pairs('panlex', tmp_path, 'de')


def test_words_of_any_script():
  for language, text, wanted in [
      ('ko', '사과', '사과'), ('th', 'แอปเปิล', 'แอปเปิล'), ('ta', 'நாய்', 'நாய்'),
      ('sw', 'mbwa', 'mbwa'), ('uk', 'яблуко 2', ''), ('he', '(כלב)', '')]:
    assert ranking.clean(text, language) == wanted


def test_a_dictionary_of_ones_own_has_plurals(tmp_path, tokenizer):
  (tmp_path / 'en-ko.txt').write_text('apple 사과\n')
  folder = dictionaries.build(
      ('ko',), tmp_path / 'data', source='muse', path=str(tmp_path))
  assert folder == tmp_path / 'data' / 'dictionaries' / 'muse'
  table = dictionaries.load(folder, ('ko',))
  key = records.mix_keys(dictionaries.phrase_keys(['apples']), np.int64(1))
  (found,) = np.flatnonzero(table.keys_K == key)
  start = table.id_starts_T[table.starts_K[found]]
  count = table.id_counts_T[table.starts_K[found]]
  assert tokenizer.decode(table.ids[start:start + count].tolist()) == '사과'


def test_what_is_not_there_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="--path='' does not exist"):
    readers.files('muse', '')
  for source, message in (('muse', 'no folder with en-de.txt'),
                          ('tsv', 'no folder with de.tsv'),
                          ('panlex', 'has no English')):
    with pytest.raises(errors.UserError, match=message):
      readers.files(source, str(tmp_path))
  (tmp_path / 'en-de.txt').write_text('a b\n')
  with pytest.raises(errors.UserError, match="'fr'; did you mean 'de'"):
    dictionaries.build(
        ('fr',), tmp_path / 'data', source='muse', path=str(tmp_path))
  with pytest.raises(errors.UserError, match="source 'mus'.*'muse'"):
    dictionaries.build(
        ('de',), tmp_path / 'data', source='mus', path=str(tmp_path))
  assert not (tmp_path / 'data').exists()


def test_dictionaries_of_other_files_are_built_again(tmp_path):
  file = tmp_path / 'ko.tsv'

  def build():
    folder = dictionaries.build(
        ('ko',), tmp_path / 'data', source='tsv', path=str(tmp_path))
    return dictionaries.load(folder, ('ko',)).ids.tolist(), (
        folder / 'ko.npz').stat().st_mtime_ns

  file.write_text('dog\t개\n')
  first, time = build()
  assert build() == (first, time)
  file.write_text('dog\t말\n')
  os.utime(file, (1, 1))
  assert build()[0] != first
  # A folder of PanLex's tables is not known by its own time.
  file.unlink()
  for language, text in (('eng', 'dog'), ('kor', '개')):
    (tmp_path / f'{language}.tsv').write_text(
        f'langvar\ttxt\tmeaning\n{language}-000\t{text}\t1\n')
  stamps = []
  for text in ('개', '말'):
    (tmp_path / 'kor.tsv').write_text(
        f'langvar\ttxt\tmeaning\nkor-000\t{text}\t1\n')
    parts = readers.inputs('panlex', str(tmp_path), ('ko',))['ko']
    stamps.append(readers.stamp('panlex', parts))
  assert stamps[0] != stamps[1]
