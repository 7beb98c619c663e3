"""Fixtures that several test files share."""

import fcntl
import hashlib
import pathlib

import jax
import pytest

from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.downloads import packages
from m3p_jax.model import config as model_config
from tests import compiler
from tests import python_server
from tests import small_search
from tests import toy_packages

compiler.configure()

# Files that take longest, first of all: no process shall end alone with one.
_LONGEST = ('test_end_to_end', 'test_storage', 'test_multi30k',
            'test_notebooks', 'test_sharding', 'test_train', 'test_exact',
            'test_serve')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Sorts the tests by file, the longest first."""

  def place(item):
    name = item.path.stem
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)

  items.sort(key=place)


@pytest.fixture(scope='session')
def tokenizer() -> tokenizer_lib.Tokenizer:
  """Returns XLM-R's tokenizer."""
  return tokenizer_lib.load()


@pytest.fixture(scope='session')
def small_run(tmp_path_factory, worker_id, testrun_uid) -> pathlib.Path:
  """Returns the workdir of `small_search`, made once for all processes."""
  if worker_id == 'master':
    return small_search.make_run(tmp_path_factory.mktemp('small'))
  folder = tmp_path_factory.getbasetemp().parent / f'small-{testrun_uid}'
  folder.mkdir(exist_ok=True)
  with open(folder / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (folder / 'done').exists():
      small_search.make_run(folder)
      (folder / 'done').touch()
  return folder / 'run'


@pytest.fixture(scope='session')
def python(tmp_path_factory):
  """Returns a program that takes Python's place, its libraries imported."""
  with python_server.run(tmp_path_factory.mktemp('python')) as program:
    yield program


@pytest.fixture(autouse=True)
def keep_compiled(monkeypatch) -> None:
  """Stages of a recipe forget what is compiled: here others still need it."""
  monkeypatch.setattr(jax, 'clear_caches', lambda: None)


@pytest.fixture
def float32(monkeypatch) -> None:
  """Weights without a config are read in float32, as the runs here say it.

  A CPU that multiplies bfloat16 would take that, and be near but not equal.
  """
  monkeypatch.setattr(model_config, 'fast_dtype', lambda platform: 'float32')


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
  """Returns an empty cache that the test uses."""
  monkeypatch.setenv('M3P_JAX_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def toy_source(cache, tmp_path, monkeypatch) -> pathlib.Path:
  """Returns the archive of a source 'toy', which a fake npm delivers."""
  del cache
  archive = toy_packages.write_tar(
      tmp_path, {'package/a.txt': b'a', 'package/b.ogg': b'b'})
  digest = hashlib.sha256(archive.read_bytes()).hexdigest()
  monkeypatch.setitem(sources.SOURCES, 'toy', packages.Source(
      'toy', '1.0.0', 'npm', digest, 'MIT', .1, 'a test', ('.txt',)))
  # The wait gives a second process the time to come between.
  toy_packages.put_client(
      tmp_path / 'bin', 'npm',
      f'echo call >> {tmp_path}/calls; sleep 0.3; cp {archive} .', monkeypatch)
  return archive
