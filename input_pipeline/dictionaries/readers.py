"""Where dictionaries come from: FreeDict, and those that users bring.

MUSE, PanLex and tables of two columns are read into the evidence that
`ranking.rank` ranks, as FreeDict's packages are.
"""

from collections.abc import Iterator, Sequence
import pathlib
import re

from absl import logging

from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import languages as languages_lib
from input_pipeline import sources
from input_pipeline import text_files
from input_pipeline.dictionaries import freedict
from input_pipeline.dictionaries import panlex
from input_pipeline.dictionaries import ranking

FREEDICT = 'freedict'
SOURCES = (FREEDICT, 'muse', 'panlex', 'tsv')
_MUSE = re.compile(r'(?P<first>[\w-]+?)-(?P<second>[\w-]+?)\.txt')


def available(source: str, path: str) -> list[str]:
  """Returns the languages that a source has; see `files`."""
  return freedict.available() if source == FREEDICT else list(
      files(source, path))


def inputs(source: str, path: str, languages: Sequence[str],
           ) -> dict[str, list]:
  """Returns {language: its files, or names of its packages}.

  Raises:
    UserError: a language, or the files, are not there.
  """
  if source == FREEDICT:
    return {name: freedict.package_names(name) for name in languages}
  found = files(source, path)
  for language in languages:
    errors.check_choice(f'dictionary language (in {path})', language, found)
  return {name: found[name] for name in languages}


def stamp(source: str, parts: list) -> str:
  """Returns the fingerprint of a language's `inputs`; fetches nothing."""
  return fingerprint.of(
      sources.versions(parts) if source == FREEDICT else
      [[path.name, fingerprint.of_path(path)] for path in parts])


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


def collect(source: str, language: str, parts: list) -> ranking.Pairs:
  """Returns what a language's `inputs` say of each English phrase."""
  if source == FREEDICT:
    return freedict.collect(language, parts)
  pairs: dict[str, dict[str, ranking.Evidence]] = {}
  for path in parts:
    is_inverse = source == 'muse' and not path.name.startswith('en-')
    for first, second in (panlex.read(language, path) if source == 'panlex'
                          else _read_table(path)):
      english, foreign = (second, first) if is_inverse else (first, second)
      ranking.add_entry(pairs, language, [english], [foreign],
                        is_inverse=is_inverse)
  return pairs


def _read_table(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the rows of a table; MUSE's columns are apart by tab or space.

  Lines of several words without a tab do not say where a phrase ends: they
  are left out, and counted on stderr.
  """
  unclear = []
  for number, line in enumerate(text_files.lines(path), start=1):
    if not line.strip():
      continue
    columns = line.split('\t') if '\t' in line else line.split()
    if len(columns) == 2:
      yield columns[0].strip(), columns[1].strip()
    else:
      unclear.append(f'{number}: {line!r:.80}')
  if unclear:
    logging.warning('%s: left out %d lines that are not two columns, as line '
                    '%s', path, len(unclear), unclear[0])
