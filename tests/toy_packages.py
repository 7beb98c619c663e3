"""Archives and package clients made up for tests."""

import io
import os
import pathlib
import shutil
import tarfile

import pytest

needs_apt = pytest.mark.skipif(
    not shutil.which('apt-get') or not shutil.which('dpkg-deb'),
    reason='apt-get and dpkg-deb exist on Debian and Ubuntu only')


def write_tar(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
  """Returns a compressed tar file of these files, in `folder`."""
  path = folder / 'toy-1.0.0.tgz'
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return path


def put_client(folder: pathlib.Path, name: str, script: str,
               monkeypatch: pytest.MonkeyPatch) -> None:
  """Puts a program of this name before all others on PATH."""
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f'#!/bin/sh\n{script}\n')
  path.chmod(0o755)
  if str(folder) not in os.environ['PATH'].split(os.pathsep):
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
