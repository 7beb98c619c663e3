"""Where dictionaries come from: FreeDict, and those that users bring.

MUSE, PanLex and tables of two columns are read into the evidence that
`lexicon.rank` ranks, as FreeDict's packages are.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import pathlib
import re
from typing import NamedTuple

from absl import logging

from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import languages as languages_lib
from input_pipeline import sources
from input_pipeline.caption_files import annotations
from input_pipeline.dictionary_files import lexicon
from input_pipeline.dictionary_files import panlex

_FREEDICT = 'freedict'
SOURCES = (_FREEDICT, 'muse', 'panlex', 'tsv')
_MUSE = re.compile(r'(?P<first>[\w-]+?)-(?P<second>[\w-]+?)\.txt')
# (English, translation, whether the dictionary is from the other language).
_Pair = tuple[str, str, bool]


class Reader(NamedTuple):
  """How a language's dictionary is read.

  Attributes:
    language: target language.
    prepare: fetches what is missing, and returns the function that reads: it
      can be sent to another process.
    stamp: fingerprint of the files.
  """
  language: str
  prepare: Callable[[], Callable[[], lexicon.Pairs]]
  stamp: str


def available(source: str, path: str) -> list[str]:
  """Returns the languages that a source has; see `files`."""
  return (lexicon.available_languages() if source == _FREEDICT
          else list(files(source, path)))


def readers(source: str, path: str, languages: Sequence[str]) -> list[Reader]:
  """Returns the readers of some languages.

  Raises:
    UserError: a language, or the files, are not there.
  """
  if source == _FREEDICT:
    packages = {name: lexicon.package_names(name) for name in languages}
    return [Reader(name, functools.partial(_fetch, name, packages[name]),
                   fingerprint.of(sources.versions(packages[name])))
            for name in languages]
  found = files(source, path)
  for language in languages:
    errors.check_choice(f'dictionary language (in {path})', language, found)
  return [_reader_of_files(source, name, found[name]) for name in languages]


def _reader_of_files(source: str, language: str,
                     paths: list[pathlib.Path]) -> Reader:
  return Reader(
      language, lambda: functools.partial(collect, source, language, paths),
      fingerprint.of([[path.name, fingerprint.of_path(path)]
                      for path in paths]))


def _fetch(language: str, names: Sequence[str]):
  """Returns the reader of FreeDict's packages, fetched one after the other."""
  return functools.partial(
      lexicon.collect, language, {name: sources.fetch(name) for name in names})


def files(source: str, path: str) -> dict[str, list[pathlib.Path]]:
  """Returns {language: its files} of what lies at a path.

  Args:
    source: one of `SOURCES` but FreeDict.
    path: of `muse`, a folder of `en-de.txt` and `de-en.txt`; of `tsv`, a folder
      of `de.tsv`; of `panlex`, PanLex Lite's SQLite file, or a folder of tables
      with the columns `langvar`, `txt` and `meaning`.

  Raises:
    UserError: there is nothing of the kind.
  """
  errors.check_choice('--source', source, SOURCES)
  folder = pathlib.Path(path)
  if not path or not folder.exists():
    raise errors.UserError(f'--path={path!r} does not exist')
  if source == 'panlex':
    return {code: [folder] for code in panlex.available(folder)}
  found: dict[str, list[pathlib.Path]] = {}
  for file in sorted(folder.iterdir()) if folder.is_dir() else ():
    if source == 'muse':
      match = _MUSE.fullmatch(file.name)
      pair = {match['first'], match['second']} if match else set()
      code = pair.difference({'en'}).pop() if pair > {'en'} else ''
    else:
      code = file.stem if file.suffix == '.tsv' else ''
    if language := languages_lib.resolve(code):
      found.setdefault(language, []).append(file)
  if not found:
    raise errors.UserError(
        f'--path={path} is no folder with '
        f'{"en-de.txt" if source == "muse" else "de.tsv"} and the like')
  return found


def collect(source: str, language: str, paths: list[pathlib.Path],
            ) -> lexicon.Pairs:
  """Returns the translations of each English phrase with their evidence.

  Args:
    source: one of `SOURCES`.
    language: target language.
    paths: its files; see `files`.

  Raises:
    UserError: a file is damaged.
  """
  pairs: dict[str, dict[str, lexicon.Evidence]] = {}
  for path in paths:
    for english, foreign, is_inverse in _pairs(source, language, path):
      lexicon.add_entry(pairs, language, [english], [foreign],
                        is_inverse=is_inverse)
  return pairs


def _pairs(source: str, language: str, path: pathlib.Path) -> Iterator[_Pair]:
  if source == 'panlex':
    return ((*pair, False) for pair in panlex.read(language, path))
  return _table(path, is_inverse=(
      source == 'muse' and not path.name.startswith('en-')))


def _table(path: pathlib.Path, *, is_inverse: bool) -> Iterator[_Pair]:
  """Yields the pairs of a table; MUSE's columns are apart by tab or space.

  Lines of several words without a tab do not say where a phrase ends: they
  are left out, and counted on stderr.
  """
  unclear = []
  for number, line in enumerate(annotations.lines(path), start=1):
    if not line.strip():
      continue
    cells = line.split('\t') if '\t' in line else line.split()
    if len(cells) != 2:
      unclear.append(f'{number}: {line!r:.80}')
      continue
    first, second = (cell.strip() for cell in cells)
    yield (second, first, True) if is_inverse else (first, second, False)
  if unclear:
    logging.warning('%s: left out %d lines that are not two columns, as line '
                    '%s', path, len(unclear), unclear[0])
