"""The files around the code agree with each other and with the code."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import tomllib

from packaging import requirements
from packaging import utils
import pytest

import m3p_jax

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
CODE = sorted(path for folder in ('configs', 'input_pipeline', 'm3p_jax')
              for path in (ROOT / folder).rglob('*.py'))
TARGETS = {'help', 'setup', 'quickstart', 'rerank', 'ablation', 'test', 'lint',
           'clean'}


def _requirements(name: str) -> list[requirements.Requirement]:
  lines = (ROOT / name).read_text().splitlines()
  return [requirements.Requirement(line) for line in lines
          if line and not line.startswith('#')]


def _make(*arguments: str) -> subprocess.CompletedProcess:
  environment = {name: value for name, value in os.environ.items()
                 if name not in ('VENV', 'PY', 'MAKEFLAGS', 'MAKELEVEL')}
  return subprocess.run(
      ['make', *arguments], cwd=ROOT, env=environment, text=True,
      capture_output=True, check=False)


def test_one_version_everywhere():
  version = PYPROJECT['project']['version']
  assert m3p_jax.__version__ == version
  assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
  assert f'\n## [{version}]' in (ROOT / 'CHANGELOG.md').read_text()


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-dev.txt',
                                  'requirements-plan.txt'])
def test_constraints_lie_in_the_requirements(name):
  pinned = {utils.canonicalize_name(line.name): line.specifier
            for line in _requirements('constraints.txt')}
  for requirement in _requirements(name):
    (pin,) = pinned[utils.canonicalize_name(requirement.name)]
    assert pin.operator == '==', requirement
    assert requirement.specifier.contains(pin.version), requirement


def test_every_third_party_import_is_required():
  modules = {'absl': 'absl-py', 'ml_collections': 'ml-collections',
             'ml_dtypes': 'ml-dtypes', 'orbax': 'orbax-checkpoint',
             'PIL': 'pillow', 'resvg_py': 'resvg-py',
             'tensorflow_datasets': 'tensorflow-datasets'}
  optional = {'tensorboard': 'requirements-dev.txt'}
  required = {line.name for line in _requirements('requirements.txt')}
  standard = set(sys.stdlib_module_names)
  ours = {'configs', 'input_pipeline', 'm3p_jax', 'main'}
  for path in CODE:
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module]
      for name in {name.split('.')[0] for name in names} - standard - ours:
        assert modules.get(name, name) in required or name in optional, (
            f'{path} imports {name}')


def test_make_help_lists_every_target():
  result = _make('help')
  assert result.returncode == 0, result.stderr
  assert set(re.findall(r'^  make (\w+) ', result.stdout, re.M)) == TARGETS


def test_documents_name_targets_that_exist():
  for name in ('README.md', 'MODEL_CARD.md', 'CHANGELOG.md', 'NOTICE'):
    text = (ROOT / name).read_text()
    named = set(re.findall(r'[`\n]make ([a-z]+)', text))
    assert named <= TARGETS, name


def test_documents_link_to_files_that_exist():
  for path in [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]:
    for link in re.findall(r'\]\(([^)#:]+)\)', path.read_text()):
      assert (path.parent / link).exists(), f'{path.name} links to {link}'


def test_map_in_the_readme_names_paths_that_exist():
  readme = (ROOT / 'README.md').read_text()
  rows = re.findall(r'^\| `([\w./]+)` \|', readme, re.M)
  assert len(rows) > 8
  for row in rows:
    assert (ROOT / row).exists(), row


def test_every_picture_is_credited():
  images = ROOT / 'docs' / 'images'
  credits = (images / 'CREDITS.md').read_text()
  for path in images.iterdir():
    assert path.name == 'CREDITS.md' or f'`{path.name}`' in credits, path.name


def test_setup_refuses_a_python_it_cannot_use(tmp_path):
  old = tmp_path / 'python3.9'
  old.write_text('#!/bin/sh\nexit 1\n')
  old.chmod(0o755)
  venv = tmp_path / 'venv'
  result = _make('setup', f'PY={old}', f'VENV={venv}')
  assert result.returncode != 0
  assert 'error: no Python 3.11, 3.12 or 3.13 found' in result.stderr
  assert str(old) in result.stderr
  assert not venv.exists()


def test_ci_runs_the_tests():
  script = ROOT / '.ci' / 'run'
  assert os.access(script, os.X_OK)
  assert 'make test' in script.read_text()
  subprocess.run(['bash', '-n', script], check=True)


def test_files_and_functions_fit_on_screens():
  for path in [ROOT / 'main.py', *CODE]:
    text = path.read_text()
    assert text.count('\n') <= 250, path
    if path.is_relative_to(ROOT / 'configs'):
      continue  # A table of commented values.
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef):
        # What an argument means may take the room that it needs.
        docstring = ast.get_docstring(node, clean=False) or ''
        lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
        assert lines <= 50, f'{path}: {node.name} has {lines} lines'
