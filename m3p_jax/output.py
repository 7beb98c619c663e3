"""Outputs that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid

from input_pipeline import errors
from input_pipeline import paths


def check_writable(path: str | os.PathLike[str], flag: str) -> None:
  """Checks, before anything is computed, that files can be made in a folder.

  Args:
    path: of the folder, which need not be there yet.
    flag: that named it, for the message.

  Raises:
    UserError: they cannot.
  """
  if paths.is_url(path):
    _check_bucket(path, flag)
    return
  folder = paths.of(path).absolute()
  while not folder.exists():
    folder = folder.parent
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise errors.UserError(
        f'{flag}={path}: nothing can be written to {folder} '
        f'({error.strerror}); allowed: a folder of yours') from error


def _check_bucket(path: str | os.PathLike[str], flag: str) -> None:
  test = paths.of(path) / f'.writable_{uuid.uuid4().hex}'
  try:
    import google.cloud.storage  # noqa: F401 — Orbax asks it for buckets.
    test.write_text('')
    test.unlink()
  except Exception as error:  # TensorFlow has a class of them for each code.
    raise errors.UserError(
        f'{flag}={os.fspath(path)}: nothing can be written there ('
        f'{str(error).strip().splitlines()[0][:200]}); allowed: a bucket of '
        'yours, and requirements-gcs.txt installed') from error


@contextlib.contextmanager
def draft(out: str | os.PathLike[str], *,
          overwrite: bool) -> Iterator[pathlib.Path]:
  """Gives the path to write to; it becomes `out` when the block ends well.

  Raises:
    UserError: something is there and `overwrite` is off, or nothing can be
      written there.
  """
  out = paths.of(out).absolute()
  if out.exists() and not overwrite:
    raise errors.UserError(
        f'--out={out} exists; --overwrite replaces it')
  check_writable(out.parent, '--out')
  if paths.is_url(out):
    with tempfile.TemporaryDirectory() as disk:
      yield pathlib.Path(disk, 'new')
      paths.remove_tree(out)
      paths.copy_tree(pathlib.Path(disk, 'new'), out)
    return
  out.parent.mkdir(parents=True, exist_ok=True)
  # One folder for all that may be left half done, Orbax's own drafts included.
  folder = out.with_name(f'.{out.name}.{os.getpid()}.draft')
  path, old = folder / 'new', folder / 'old'
  try:
    folder.mkdir()
    yield path
    # A folder cannot be replaced in one move: the old one steps aside.
    if out.is_dir():
      out.rename(old)
    path.replace(out)
  finally:
    if old.exists() and not out.exists():
      old.rename(out)
    shutil.rmtree(folder, ignore_errors=True)
