"""Reads PanLex's translations from English, in the two forms that it is had.

PanLex Lite is an SQLite file: expressions `ex(ex, lv, tt)`, their meanings
`dnx(mn, ex, uq, ap, ui)`, languages `lv(lv, uid)`; two expressions of one
meaning translate each other, and `uq` is how good the source is. The other
form is a table a language with the columns `langvar`, `txt` and `meaning`.
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
_QUERY = """
SELECT english.tt, foreign_.tt, SUM(first.uq + second.uq) AS quality
FROM ex AS english
JOIN dnx AS first ON first.ex = english.ex
JOIN dnx AS second ON second.mn = first.mn
JOIN ex AS foreign_ ON foreign_.ex = second.ex
WHERE english.lv = ? AND foreign_.lv = ?
GROUP BY english.tt, foreign_.tt ORDER BY quality DESC, english.tt, foreign_.tt
"""
_COLUMNS = frozenset(('langvar', 'txt', 'meaning'))


def _uid(language: str) -> str:
  """Returns PanLex's code of a language: ISO 639-3 and a number."""
  return f'{(*languages.get(language).also, language)[0]}-000'


def available(path: pathlib.Path) -> list[str]:
  """Returns the public codes of the languages that a file or folder has."""
  if path.is_dir():
    uids = set(_tables(path))
  else:
    with _open(path) as database:
      uids = {uid for (uid,) in database.execute('SELECT uid FROM lv')}
  if _ENGLISH not in uids:
    raise errors.UserError(
        f'--path={path} has no English ({_ENGLISH}); found: '
        f'{", ".join(sorted(map(str, uids))[:20]) or "nothing"}')
  return [code for code in languages.codes()
          if code != 'en' and _uid(code) in uids]


def read(language: str, path: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields (English, translation), those of the best sources first."""
  if path.is_dir():
    yield from _join(language, path)
    return
  with _open(path) as database:
    numbers = [database.execute(
        'SELECT lv FROM lv WHERE uid = ?', (uid,)).fetchone()[0]
               for uid in (_ENGLISH, _uid(language))]
    for english, foreign, _ in database.execute(_QUERY, numbers):
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


def _join(language: str, folder: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the pairs of texts of a folder's tables that share a meaning."""
  tables = _tables(folder)
  english: dict[str, list[str]] = {}
  for row in _meanings(tables[_ENGLISH]):
    english.setdefault(row['meaning'], []).append(row['txt'])
  for row in _meanings(tables[_uid(language)]):
    for text in english.get(row['meaning'], ()):
      yield text, row['txt']


def _tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns {PanLex's code: table}."""
  return {next((row['langvar'] for row in _meanings(table)), ''): table
          for table in sorted(folder.glob('*.tsv'))
          if not table.name.startswith('.')}


def _meanings(table: pathlib.Path) -> Iterator[dict[str, str]]:
  with _damages(table):
    rows = csv.DictReader(text_files.lines(table), delimiter='\t',
                          quoting=csv.QUOTE_NONE)
    if not set(rows.fieldnames or ()) >= _COLUMNS:
      raise errors.UserError(
          f'{table}: columns {", ".join(rows.fieldnames or ())!r:.80}; '
          'allowed: a header with langvar, txt and meaning')
    for row in rows:
      if all(row[name] is not None for name in _COLUMNS):
        yield row
