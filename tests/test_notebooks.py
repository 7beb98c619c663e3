"""The notebooks run, call the library only, and tell nothing of a machine."""

import ast
import re
import shutil
import tomllib

import pytest

from tests import notebooks

URL = tomllib.loads((notebooks.ROOT / 'pyproject.toml').read_text())[
    'project']['urls']['Repository']
_MACHINE = re.compile(r'(/root|/home|/tmp|/usr|/opt|/Users|C:\\)')


def _source(cell) -> str:
  """Returns a cell's Python; lines of IPython are left out."""
  return '\n'.join(
      re.sub(r'^(\s*)[!%].*', r'\1pass', line)
      for line in cell.source.split('\n'))


def test_there_are_three():
  assert notebooks.NAMES == (
      'finetune_retrieval', 'pretrain_tpu', 'search_your_photos')


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_badge_and_checkout_name_the_repository(name):
  cells = notebooks.read(name).cells
  path = URL.removeprefix('https://github.com/')
  assert (f'(https://colab.research.google.com/github/{path}/blob/main/'
          f'notebooks/{name}.ipynb)') in cells[0].source.split('\n')[0]
  assert 'nly a CPU was tried' in ' '.join(cells[0].source.split())
  source = '\n'.join(cell.source for cell in cells)
  assert source.count(URL) == 1
  assert f"\nREPOSITORY = '{URL}'\n" in source


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_cells_are_explained_and_define_nothing(name):
  cells = notebooks.read(name).cells
  before = None
  for cell in cells:
    if cell.cell_type == 'code':
      assert before == 'markdown', cell.source
      for node in ast.walk(ast.parse(_source(cell))):
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef
                              | ast.AsyncFunctionDef | ast.Lambda)
    else:
      assert re.search(r'[.:]\**$', cell.source.strip()), cell.source
    before = cell.cell_type


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_committed_outputs_are_whole_and_without_paths(name):
  cells = [cell for cell in notebooks.read(name).cells
           if cell.cell_type == 'code']
  assert [cell.execution_count for cell in cells] == list(
      range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert any('image/png' in output.get('data', {}) for output in outputs)
  for output in outputs:
    assert output.output_type != 'error'
    text = output.get('text', '') + output.get('data', {}).get(
        'text/plain', '')
    assert not _MACHINE.search(text), text
    assert not re.search(r'[\x00-\x08\x0b-\x1f]', text), text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  if not shutil.which('apt-get'):
    pytest.skip('needs apt for its data')
  return tmp_path_factory.mktemp('notebooks')


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_notebook_runs_on_a_cpu(name, folder):
  cells = notebooks.execute(name, folder).cells
  assert all(cell.execution_count for cell in cells
             if cell.cell_type == 'code')
  assert sum('image/png' in output.get('data', {}) for cell in cells
             if cell.cell_type == 'code' for output in cell.outputs) >= 1
