"""The files around the code agree with each other and with the code."""

import ast
from collections.abc import Iterable
import graphlib
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
TARGETS = {'help', 'setup', 'photos', 'quickstart', 'rerank', 'ablation',
           'serve', 'test', 'fuzz', 'bench', 'lint', 'docs', 'clean'}


def _requirements(name: str) -> list[requirements.Requirement]:
  lines = (ROOT / name).read_text().splitlines()
  return [requirements.Requirement(line) for line in lines
          if line and not line.startswith(('#', '-'))]


def _make(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
  environment = {name: value for name, value in os.environ.items()
                 if name not in ('VENV', 'PY', 'MAKEFLAGS', 'MAKELEVEL',
                                 'MAKEOVERRIDES', 'ARGS', 'WORKDIR',
                                 'DATA_DIR', 'PICTURES', 'QUERY')}
  environment |= variables
  return subprocess.run(
      ['make', *arguments], cwd=ROOT, env=environment, text=True,
      capture_output=True, check=False)


def test_one_version_everywhere():
  version = PYPROJECT['project']['version']
  assert m3p_jax.__version__ == version
  assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
  assert f'\n## [{version}]' in (ROOT / 'CHANGELOG.md').read_text()


# Beam needs versions of its own; the file pins them.
@pytest.mark.parametrize('name', sorted(
    path.name for path in ROOT.glob('requirements*.txt')
    if path.name != 'requirements-beam.txt'))
def test_constraints_lie_in_the_requirements(name):
  pinned = {utils.canonicalize_name(line.name): line.specifier
            for line in _requirements('constraints.txt')}
  for requirement in _requirements(name):
    (pin,) = pinned[utils.canonicalize_name(requirement.name)]
    assert pin.operator == '==', requirement
    assert requirement.specifier.contains(pin.version), requirement


def test_every_third_party_import_is_required():
  modules = {'absl': 'absl-py', 'apache_beam': 'apache-beam',
             'faiss': 'faiss-cpu', 'google': 'google-cloud-storage',
             'ml_collections': 'ml-collections',
             'ml_dtypes': 'ml-dtypes', 'orbax': 'orbax-checkpoint',
             'PIL': 'pillow', 'resvg_py': 'resvg-py',
             'swagger_ui_bundle': 'swagger-ui-bundle-v2',
             'tensorflow_datasets': 'tensorflow-datasets'}
  # What is optional has a file of its own.
  required = {line.name for path in ROOT.glob('requirements*.txt')
              for line in _requirements(path.name)}
  # Which build of PyTorch is right depends on the machine: Makefile's TORCH.
  required.add('torch')
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
        assert modules.get(name, name) in required, f'{path} imports {name}'


def _imports() -> dict[str, set[str]]:
  """Returns the project's modules that each of its modules imports."""
  modules = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path
             for path in CODE}
  found: dict[str, set[str]] = {}
  for module, path in modules.items():
    found[module] = set()
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      for name in names:
        # `from package import module`, or a name out of a module.
        found[module] |= {
            one for one in (name, name.rpartition('.')[0], f'{name}.__init__')
            if one in modules and one != module}
  return found


def test_imports_run_in_no_circle():
  found = _imports()
  # The arrows are seen: of modules, of packages, and inside of a function.
  assert 'm3p_jax.model.m3p' in found['m3p_jax.train']
  assert 'input_pipeline.regions.__init__' in found[
      'input_pipeline.formats.butd_tsv']
  assert 'm3p_jax.train' in found['m3p_jax.command_line']
  with pytest.raises(graphlib.CycleError):
    graphlib.TopologicalSorter(found | {
        'm3p_jax.model.m3p': {'m3p_jax.train'}}).prepare()
  graphlib.TopologicalSorter(found).prepare()


# Who may import what of the project: a prefix of modules, and the prefixes of
# those that they may name. What is not here may import anything below main.py.
_ARROWS = {
    'configs': ('configs', 'input_pipeline.errors',
                'input_pipeline.languages'),
    'configs.languages': (),
    'input_pipeline': ('input_pipeline', 'm3p_jax.batch', 'configs.languages'),
    'm3p_jax.batch': (),
    'm3p_jax.model': ('m3p_jax.model', 'm3p_jax.batch', 'm3p_jax.sharding',
                      'm3p_jax.shares', 'input_pipeline.errors'),
    'm3p_jax.shares': ('m3p_jax.sharding',),
    'm3p_jax.objectives': ('m3p_jax.objectives', 'm3p_jax.model',
                           'm3p_jax.batch', 'm3p_jax.metrics',
                           'input_pipeline.errors'),
}


def _lies_in(module: str, prefixes: Iterable[str]) -> bool:
  return any(f'{module}.'.startswith(f'{prefix}.') for prefix in prefixes)


@pytest.mark.parametrize('prefix', sorted(_ARROWS))
def test_imports_point_one_way(prefix):
  found = {module: names for module, names in _imports().items()
           if _lies_in(module, [prefix])}
  assert found
  for module, names in found.items():
    # The narrower rule holds.
    closest = max((p for p in _ARROWS if _lies_in(module, [p])), key=len)
    for name in names:
      assert _lies_in(name, _ARROWS[closest]), f'{module} imports {name}'


def test_nobody_imports_recipes_but_recipes():
  for module, names in _imports().items():
    if not _lies_in(module, ['m3p_jax.recipes']):
      assert not [n for n in names if _lies_in(n, ['m3p_jax.recipes'])], module


def test_make_help_lists_every_target():
  result = _make('help')
  assert result.returncode == 0, result.stderr
  assert set(re.findall(r'^  make (\w+) ', result.stdout, re.M)) == TARGETS


@pytest.fixture(scope='module')
def stub_venv(tmp_path_factory) -> str:
  """Returns an environment whose Python prints its arguments, a line each."""
  venv = tmp_path_factory.mktemp('stub') / 'venv'
  (venv / 'bin').mkdir(parents=True)
  (venv / 'bin' / 'python').write_text(
      '#!/bin/sh\nfor one in "$@"; do printf "%s\\n" "$one"; done\n')
  (venv / 'bin' / 'python').chmod(0o755)
  for name in ('.run', '.demo'):
    (venv / name).touch()
  return f'VENV={venv}'


_NAMES = ('-x --y it\'s a "b" `id` *?[a] 日本 語\\',
          'cost $5 $HOME $(HOME) $$  a#b; c & d | e > f')


@pytest.mark.parametrize('name', _NAMES)
@pytest.mark.parametrize('is_typed', [True, False])
def test_make_passes_names_as_they_are(stub_venv, name, is_typed):
  names = {'PICTURES': name, 'QUERY': name, 'WORKDIR': name, 'DATA_DIR': name}

  def run(target):
    typed = [f'{key}={value}' for key, value in names.items()]
    done = (_make(target, stub_venv, *typed) if is_typed
            else _make(target, stub_venv, **names))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

  assert run('photos') == [
      '-m', 'm3p_jax.recipes.photos', f'--pictures={name}',
      f'--data_dir={name}', f'--workdir={name}', f'--query={name}']
  assert run('rerank') == [
      '-m', 'm3p_jax.recipes.quickstart', f'--workdir={name}',
      f'--data_dir={name}', '--rerank_all']
  assert run('serve') == ['main.py', '--mode=serve', f'--workdir={name}']
  assert any(f'WORKDIR={name} DATA_DIR={name}' in line
             for line in run('help'))


def test_make_photos_has_defaults_of_its_own(stub_venv):
  done = _make('photos', stub_venv, 'PICTURES=a b', "ARGS=--k=3 --query='c d'")
  assert done.stdout.splitlines() == [
      '-m', 'm3p_jax.recipes.photos', '--pictures=a b', '--data_dir=data',
      '--k=3', '--query=c d']


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


def test_what_is_deployed_is_here():
  docker = (ROOT / 'deploy' / 'Dockerfile').read_text()
  for line in re.findall(r'^COPY (.+)', docker.replace('\\\n', ' '), re.M):
    for name in line.split()[:-1]:
      assert (ROOT / name).exists(), name
  unit = (ROOT / 'deploy' / 'm3p_jax.service').read_text()
  main = (ROOT / 'main.py').read_text()
  flags = set(re.findall(r'--(\w+)=', re.findall(
      r'^(?:ExecStart=.*|CMD.*)', unit.replace('\\\n', ' ') + docker, re.M
      )[0]))
  assert flags == {'mode', 'workdir', 'host', 'port', 'token'}
  for name in flags:
    assert f"'{name}'," in main, name


def test_files_and_functions_fit_on_screens():
  for path in [ROOT / 'main.py', *CODE]:
    text = path.read_text()
    assert text.count('\n') <= 400, path
    if path.is_relative_to(ROOT / 'configs'):
      continue  # A table of commented values.
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef):
        # What an argument means may take the room that it needs.
        docstring = ast.get_docstring(node, clean=False) or ''
        lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
        assert lines <= 50, f'{path}: {node.name} has {lines} lines'
