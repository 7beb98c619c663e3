"""Reads PanLex's translations from English, in the two forms that it is had.

PanLex Lite is an SQLite file: expressions `ex(ex, lv, tt)`, their meanings
`dnx(mn, ex, uq, ap, ui)`, languages `lv(lv, uid)`; two expressions of one
meaning translate each other, and `uq` is how good the source is. The other
form is a table a language with the columns `txt`, `meaning` and `langvar_uid`
(or `langvar`, where that holds PanLex's code).
"""

from collections.abc import Iterator
import contextlib
import csv
import pathlib
import sqlite3

from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import text_files

_ENGLISH = 'eng-000'
# A code is ISO 639-3 and a number, 000 for the main variety. Others: those in
# the other script, of another country, or under the macro-language.
_VARIETIES = {'zh_TW': ('cmn-001',), 'pt_BR': ('por-001',),
              'sr_Latn': ('srp-001', 'hbs-001'), 'sh': ('hbs-001', 'hbs-000')}
_QUERY = """
SELECT english.tt, foreign_.tt, SUM(first.uq + second.uq) AS quality
FROM ex AS english
JOIN dnx AS first ON first.ex = english.ex
JOIN dnx AS second ON second.mn = first.mn
JOIN ex AS foreign_ ON foreign_.ex = second.ex
JOIN lv AS here ON here.lv = english.lv
JOIN lv AS there ON there.lv = foreign_.lv
WHERE here.uid = ? AND there.uid IN ({})
GROUP BY english.tt, foreign_.tt ORDER BY quality DESC, english.tt, foreign_.tt
"""
_COLUMNS = frozenset(('langvar', 'txt', 'meaning'))


def codes(language: str) -> tuple[str, ...]:
  """Returns what PanLex may call a language; it has one or several of them."""
  return _VARIETIES.get(language) or tuple(
      f'{code}-000' for code in (*languages.get(language).also, language)
      if len(code) == 3)


def available(path: pathlib.Path) -> list[str]:
  """Returns the public codes of the languages that a file or folder has."""
  if path.is_dir():
    tables = _tables(path)
    found = {uid for language in languages.codes() for uid in codes(language)
             if uid[:3] in tables
             and any(uid == row['uid'] for row in _meanings(tables[uid[:3]]))}
    there = sorted(tables)
  else:
    with _open(path) as database:
      found = {uid for (uid,) in database.execute('SELECT uid FROM lv')}
    there = sorted(map(str, found))
  if _ENGLISH not in found:
    raise errors.UserError(
        f'--path={path} has no English ({_ENGLISH}); found: '
        f'{", ".join(there[:20]) or "nothing"}')
  return [code for code in languages.codes()
          if code != 'en' and found.intersection(codes(code))]


def read(language: str, path: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields (English, translation), those of the best sources first."""
  wanted = codes(language)
  if path.is_dir():
    yield from _join(wanted, path)
    return
  with _open(path) as database:
    query = _QUERY.format(', '.join('?' * len(wanted)))
    for english, foreign, _ in database.execute(query, (_ENGLISH, *wanted)):
      yield str(english), str(foreign)


@contextlib.contextmanager
def _damages(path: pathlib.Path):
  try:
    yield
  except (sqlite3.Error, csv.Error, UnicodeError, OverflowError) as error:
    raise errors.UserError(
        f'{path}: damaged, or not PanLex: {error}') from error


@contextlib.contextmanager
def _open(path: pathlib.Path):
  """Gives an SQLite file, read only; nothing in its schema is trusted."""
  with _damages(path), contextlib.closing(sqlite3.connect(
      f'{path.resolve().as_uri()}?mode=ro&immutable=1',
      uri=True)) as database:
    database.execute('PRAGMA trusted_schema=OFF')
    yield database


def _join(wanted: tuple[str, ...],
          folder: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the pairs of texts of a folder's tables that share a meaning."""
  tables = _tables(folder)
  english: dict[str, list[str]] = {}
  for row in _meanings(tables[_ENGLISH[:3]]):
    if row['uid'] == _ENGLISH:
      english.setdefault(row['meaning'], []).append(row['txt'])
  for uid in wanted:
    for row in _meanings(tables[uid[:3]]) if uid[:3] in tables else ():
      if row['uid'] == uid:
        for text in english.get(row['meaning'], ()):
          yield text, row['txt']


def _tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns {ISO 639-3: table}; one holds all varieties of its language."""
  return {next((row['uid'] for row in _meanings(table)), '')[:3]: table
          for table in sorted(folder.glob('*.tsv'))
          if not table.name.startswith('.')}


def _meanings(table: pathlib.Path) -> Iterator[dict[str, str]]:
  """Yields a table's whole rows, with PanLex's code as `uid`."""
  with _damages(table):
    rows = csv.DictReader(text_files.lines(table), delimiter='\t',
                          quoting=csv.QUOTE_NONE)
    if not set(rows.fieldnames or ()) >= _COLUMNS:
      raise errors.UserError(
          f'{table}: columns {", ".join(rows.fieldnames or ())!r:.80}; '
          'allowed: a header with langvar, txt and meaning')
    for row in rows:
      if all(row[name] is not None for name in _COLUMNS):
        yield row | {'uid': row.get('langvar_uid') or row['langvar']}
