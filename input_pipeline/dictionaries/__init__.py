"""Builds and loads the dictionaries from English that code-switching reads.

  python -m input_pipeline.dictionaries --data_dir=DIR [--languages=de,fr]

writes DIR/dictionaries/SOURCE/<language>.npz, by default from FreeDict's
packages; --source=muse, panlex or tsv reads --path (see `readers`). With
--coverage=DATASET it says what share of that set's English words each of them
has. A key of 64 bits stands for English of up to three words, token ids for the
rest.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import itertools
import multiprocessing
import os
from typing import NamedTuple

import numpy as np

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import languages as languages_lib
from input_pipeline import paths
from input_pipeline import records
from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.dictionaries import freedict
from input_pipeline.dictionaries import ranking
from input_pipeline.dictionaries import readers

FOLDER = 'dictionaries/freedict'
package_names = freedict.package_names
# Raised when files of an older build must not be reused.
_VERSION = 2


class Dictionary(NamedTuple):
  """Phrases of all chosen languages in one sorted table.

  Attributes:
    keys_K: int64 [K], ascending; `records.mix_keys(phrase key, index + 1)`,
      index = the language's place in `languages`.
    starts_K: int32 [K], a phrase's first translation.
    counts_K: int32 [K], its number of translations, the best first.
    id_starts_T: int32 [T], a translation's first token id in `ids`.
    id_counts_T: int32 [T], its number of token ids.
    ids: int32, the token ids of all translations.
    languages: the target languages.
    phrases_P: int64 [P], ascending: the keys that any language has.
    having_starts_P, having_counts_P: int64 [P], where a phrase's languages
      stand in `having`, which holds their numbers, from 1.
  """
  keys_K: np.ndarray
  starts_K: np.ndarray
  counts_K: np.ndarray
  id_starts_T: np.ndarray
  id_counts_T: np.ndarray
  ids: np.ndarray
  languages: tuple[str, ...]
  phrases_P: np.ndarray
  having_starts_P: np.ndarray
  having_counts_P: np.ndarray
  having: np.ndarray


# What the files have.
_COLUMNS = Dictionary._fields[:6]


def phrase_keys(phrases: Sequence[str]) -> np.ndarray:
  """Returns int64 keys: of each phrase its words' keys folded from the left."""
  rows = [phrase.split() for phrase in phrases]
  known = {word: tokenizer_lib.word_key(word)
           for word in set(itertools.chain.from_iterable(rows))}
  length_K = np.array([len(row) for row in rows])
  keys_K = np.array([known[row[0]] for row in rows], np.int64)
  for place in range(1, max(length_K)):
    (longer,) = np.nonzero(length_K > place)
    keys_K[longer] = records.mix_keys(keys_K[longer], np.array(
        [known[rows[i][place]] for i in longer], np.int64))
  return keys_K


def build(languages: Sequence[str], data_dir: str | os.PathLike[str], *,
          source: str = 'freedict', path: str = '') -> paths.Path:
  """Returns the folder in which every language's dictionary now stands.

  Dictionaries that the same tokenizer already built of the same files are
  kept.

  Args:
    source: one of `readers.SOURCES`; 'freedict' is fetched.
    path: where the files of another source are.

  Raises:
    UserError: an unknown language, or one without a dictionary.
  """
  folder = (paths.local(data_dir, '--data_dir') / FOLDER).with_name(source)
  jobs = []
  for language, parts in readers.inputs(source, path, languages).items():
    target = folder / f'{language}.npz'
    stamp = (f'{_VERSION} {tokenizer_lib.load().sha256} '
             f'{readers.stamp(source, parts)}')
    if _stamp(target) != stamp:
      jobs.append((source, language, parts, target, stamp))
  if source == readers.FREEDICT:  # One after the other, with a bar for each.
    for name in itertools.chain.from_iterable(job[2] for job in jobs):
      sources.fetch(name)
  folder.mkdir(parents=True, exist_ok=True)
  if len(jobs) < 2:
    for job in jobs:
      _build_one(*job)
    return folder
  # Spawned: a fork would inherit the locks of TensorFlow's threads.
  with concurrent.futures.ProcessPoolExecutor(
      min(len(jobs), os.cpu_count() or 1),
      multiprocessing.get_context('spawn')) as pool:
    done = [pool.submit(_build_one, *job) for job in jobs]
    with console.bar('dictionaries', len(done), unit='languages') as bar:
      for future in concurrent.futures.as_completed(done):
        future.result()
        bar.update()
  return folder


def _build_one(source: str, language: str, parts: list, target: paths.Path,
               stamp: str) -> None:
  ranked = ranking.rank(
      readers.collect(source, language, parts), tokenizer_lib.load())
  if not ranked:
    raise errors.UserError(f'nothing usable for {language} in its dictionary')
  ranking.add_fallbacks(ranked)
  write(ranked, target, stamp=stamp)


def folders(data_dir: str | os.PathLike[str]) -> list[paths.Path]:
  """Returns the folders of dictionaries that were built; UserError at none."""
  parent = (paths.of(data_dir) / FOLDER).parent
  found = sorted({path.parent for path in parent.glob('*/*.npz')})
  if not found:
    raise errors.UserError(
        f'{parent}: no dictionaries; make them with `python -m '
        f'input_pipeline.dictionaries --data_dir={data_dir}`')
  return found


def available(folders: Sequence[str | os.PathLike[str]]) -> list[str]:
  """Returns the languages that have a dictionary in any of the folders."""
  return sorted({path.stem for folder in folders
                 for path in paths.of(folder).glob('*.npz')})


def load(folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
         languages: Sequence[str], *, shuffle_seed: int = -1) -> Dictionary:
  """Returns the dictionaries of `languages` as one table.

  Args:
    folders: where `build` wrote them. A phrase that several of them have has
      the first one's translations.
    languages: target languages; ('all',) = those that the folders have.
    shuffle_seed: negative, or the seed by which the phrases of a language
      exchange their translations: a control that keeps how often words are
      replaced, and by what, but not what they mean.

  Raises:
    UserError: a language without a dictionary in the folders.
  """
  if isinstance(folders, str | os.PathLike):
    folders = [folders]
  there, tables = available(folders), []
  if tuple(languages) == (languages_lib.ALL,):
    languages = there
  where = ', '.join(map(str, folders))
  for index, language in enumerate(languages):
    errors.check_choice(f'dictionary language (in {where})', language, there)
    table = _join([_read(path) for path in (
        paths.of(folder) / f'{language}.npz' for folder in folders)
                   if path.exists()])
    table['keys_K'], order_K = np.unique(table['keys_K'], return_index=True)
    if shuffle_seed >= 0:
      order_K = np.random.default_rng((shuffle_seed, index)).permutation(
          order_K)
    for name in ('starts_K', 'counts_K'):
      table[name] = table[name][order_K]
    tables.append(table)
  joined = _join(tables)
  number_K = np.repeat(np.arange(1, len(tables) + 1),
                       [len(table['keys_K']) for table in tables])
  phrases_P, counts_P = np.unique(joined['keys_K'], return_counts=True)
  having = number_K[np.argsort(joined['keys_K'], kind='stable')]
  joined['keys_K'] = records.mix_keys(joined['keys_K'], number_K)
  order_K = np.argsort(joined['keys_K'])
  for name in ('keys_K', 'starts_K', 'counts_K'):
    joined[name] = joined[name][order_K]
  return Dictionary(
      **joined, languages=tuple(languages), phrases_P=phrases_P,
      having_starts_P=np.cumsum(counts_P) - counts_P, having_counts_P=counts_P,
      having=having)


def _read(path: paths.Path) -> dict[str, np.ndarray]:
  with paths.load(path) as file:
    return {name: file[name] for name in _COLUMNS}


def _join(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Returns the rows of all tables, one table after the other."""
  joined = {name: np.concatenate([table[name] for table in tables])
            for name in _COLUMNS}
  for name, rows, values in (('starts_K', 'keys_K', 'id_starts_T'),
                             ('id_starts_T', 'id_starts_T', 'ids')):
    sizes = [len(table[values]) for table in tables]
    joined[name] = joined[name] + np.repeat(
        np.cumsum([0, *sizes[:-1]]), [len(table[rows]) for table in tables]
    ).astype(np.int32)
  return joined


def fingerprint_of(folder: str | os.PathLike[str],
                   languages: Sequence[str]) -> str:
  """Returns what tells the dictionaries of a folder from others there."""
  return fingerprint.of([_stamp(paths.of(folder) / f'{language}.npz')
                         for language in languages])


def _stamp(path: paths.Path) -> str:
  if not path.exists():
    return ''
  with paths.load(path) as file:
    return str(file['stamp'])


def write(ranked: Mapping[str, Sequence[Sequence[int]]],
          path: paths.Path, *, stamp: str = '') -> None:
  """Writes one language's dictionary, whole or not at all.

  Args:
    ranked: English phrase → its translations as token ids, the best first.
    path: `<language>.npz`.
    stamp: names what the dictionary was made with.
  """
  phrases = list(ranked)
  keys_K, first_K = np.unique(phrase_keys(phrases), return_index=True)
  lists = [ranked[phrases[i]] for i in first_K]
  # A plural shares its singular's list: stored once.
  starts, id_counts, ids = {}, [], []
  for translations in lists:
    if id(translations) not in starts:
      starts[id(translations)] = len(id_counts)
      for translation in translations:
        id_counts.append(len(translation))
        ids.extend(translation)
  id_counts_T = np.array(id_counts, np.int32)
  partial = path.with_suffix('.partial')
  with partial.open('wb') as file:
    np.savez(
        file, stamp=stamp, keys_K=keys_K,
        starts_K=np.array([starts[id(found)] for found in lists], np.int32),
        counts_K=np.array([len(found) for found in lists], np.int32),
        id_starts_T=np.cumsum(id_counts_T, dtype=np.int32) - id_counts_T,
        id_counts_T=id_counts_T, ids=np.array(ids, np.int32))
  os.replace(partial, path)
