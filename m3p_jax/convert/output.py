"""Outputs that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from input_pipeline import errors


@contextlib.contextmanager
def draft(out: str | os.PathLike[str], *,
          overwrite: bool) -> Iterator[pathlib.Path]:
  """Gives the path to write to; it becomes `out` when the block ends well.

  Args:
    out: file or folder.
    overwrite: replace what is there.

  Raises:
    UserError: something is there and `overwrite` is off.
  """
  out = pathlib.Path(out).absolute()
  if out.exists() and not overwrite:
    raise errors.UserError(
        f'--out={out} exists; --overwrite replaces it')
  out.parent.mkdir(parents=True, exist_ok=True)
  path = out.with_name(f'.{out.name}.{os.getpid()}.draft')
  old = out.with_name(f'.{out.name}.{os.getpid()}.old')
  try:
    yield path
    # A folder cannot be replaced in one move: the old one steps aside.
    if out.is_dir():
      out.rename(old)
    path.replace(out)
  finally:
    if old.exists() and not out.exists():
      old.rename(out)
    for rest in (path, old):
      if rest.is_dir():
        shutil.rmtree(rest)
      else:
        rest.unlink(missing_ok=True)
