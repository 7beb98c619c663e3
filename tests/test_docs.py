"""The pages say what is: keys, messages, links, and commands that work."""

import ast
import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from PIL import Image
import pytest

from docs import build
from docs import config_table
from m3p_jax import config as config_lib

DOCS = config_table.ROOT / 'docs'
CODE = sorted([*(config_table.ROOT / 'input_pipeline').rglob('*.py'),
               *(config_table.ROOT / 'm3p_jax').rglob('*.py'),
               config_table.ROOT / 'main.py'])


def test_page_of_configs_is_current():
  assert config_table.PAGE.read_text() == config_table.page(), (
      'configs/base.py changed: run `make docs` and commit docs/configs.md')


def test_page_of_configs_has_every_key_with_its_default():
  text = config_table.PAGE.read_text()
  values = config_lib.flatten(config_table.base.get_config())
  for key in config_lib.known_keys():
    (row,) = re.findall(rf'^\| `{re.escape(key)}` \|.*$', text, re.M)
    _, _, default, unit, meaning, _ = re.split(r'(?<!\\)\|', row)
    assert default.strip() == f'`{values[key]!r}`'
    assert unit.strip() and len(meaning.split()) > 1, key


def test_pages_and_links_are_whole():
  assert not build.mistakes()


def test_a_broken_link_and_an_unlisted_page_are_found(tmp_path, monkeypatch):
  monkeypatch.setattr(build, 'SOURCE', tmp_path)
  (tmp_path / 'index.md').write_text(
      '[a](gone.md) ![b](images/gone.png) [c](https://nowhere) [d](#here)')
  (tmp_path / 'other.md').write_text('')
  assert build.mistakes() == [
      'docs/other.md is not in NAV of docs/build.py',
      'index.md: there is no gone.md', 'index.md: there is no images/gone.png',
      'index.md: https://nowhere is no address']


def test_what_a_page_loads_from_the_network_is_found(tmp_path):
  (tmp_path / 'a.html').write_text(
      '<a href="https://x.org">fine</a><link rel=stylesheet href="//x.org/f">'
      '<script src="a.js"></script><script src="https://x.org/b"></script>')
  assert build.network_loads(tmp_path) == [
      'a.html loads //x.org/f', 'a.html loads https://x.org/b']


def test_links_to_code_lead_to_the_repository():
  assert build.for_site('[a](../main.py) [b](index.md)') == (
      f'[a]({build.repository()}/blob/main/main.py) [b](index.md)')


@pytest.mark.skipif(
    not (os.environ.get('CI') or importlib.util.find_spec('zensical')),
    reason='needs requirements-docs.txt')
def test_the_site_is_built(tmp_path, monkeypatch):
  monkeypatch.setattr(build, 'STAGE', tmp_path / 'stage')
  monkeypatch.setattr(build, 'SITE', tmp_path / 'site')
  monkeypatch.setattr(build, 'ROOT', tmp_path)
  monkeypatch.setattr(build, 'repository', lambda: 'https://example.org/x')
  build.main()
  pages = {path.name for path in (tmp_path / 'site').glob('*.html')}
  assert {name.replace('.md', '.html') for name in build.pages()} <= pages
  text = (tmp_path / 'site' / 'concepts.html').read_text()
  assert 'images/streams.png' in text


@functools.cache
def messages() -> str:
  """Returns what the code can say, values as …, one message a line."""
  found = []
  for path in CODE:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.JoinedStr | ast.Constant):
        found.append(_template(node))
  return '\n'.join(found)


def _template(node: ast.expr) -> str:
  if isinstance(node, ast.Constant):
    return node.value if isinstance(node.value, str) else ''
  return ''.join(part.value if isinstance(part, ast.Constant) else '…'
                 for part in node.values)


def _quoted() -> list[str]:
  return re.findall(r'^\| `([^`]+)` \|',
                    (DOCS / 'troubleshooting.md').read_text(), re.M)


def test_quoted_messages_are_messages_of_the_code():
  assert len(_quoted()) > 40
  for message in _quoted():
    for part in message.split('…'):
      # A part is said in one piece; a name in the middle may be a value.
      assert part.strip(' ;:.') in messages(), message


def _blocks(page: str, language: str) -> list[tuple[str, str]]:
  """Returns (the paragraph before, content) of a page's code blocks."""
  text = (DOCS / page).read_text()
  return [(text[:match.start()].rstrip().split('\n\n')[-1], match[1])
          for match in re.finditer(rf'```{language}\n(.*?)```', text, re.S)]


def _write_pictures(folder: pathlib.Path) -> None:
  (folder / 'red_apple').mkdir(parents=True)
  Image.new('RGB', (64, 48), 'red').save(folder / 'red_apple' / '1.png')
  (folder / 'captions.jsonl').write_text(json.dumps({
      'image': 'red_apple/1.png', 'captions': {
          'en': ['a red apple'], 'haw': ['he ʻāpala ʻulaʻula']}}))


def test_extending_works_as_written(tmp_path):
  for folder in ('configs', 'input_pipeline', 'm3p_jax'):
    shutil.copytree(
        config_table.ROOT / folder, tmp_path / folder,
        ignore=shutil.ignore_patterns('__pycache__'))
  shutil.copy(config_table.ROOT / 'pyproject.toml', tmp_path)
  for before, content in _blocks('extending.md', 'python'):
    path = tmp_path / re.findall(r'`([\w/]+\.py)`', before)[-1]
    if path.exists():
      # A row: it goes to the end of the table.
      text = path.read_text()
      assert text.endswith('\n)\n'), path
      content = text.removesuffix(')\n') + content + ')\n'
    path.write_text(content)
  _write_pictures(tmp_path / 'DIR')
  commands = [shlex.split(block) for _, block in _blocks('extending.md', 'sh')]
  assert {command[2] for command in commands} == {'input_pipeline.prepare'}
  (tmp_path / 'check.py').write_text('\n'.join((
      'from absl import flags',
      'from absl.testing import flagsaver',
      'from configs import base',
      'from input_pipeline import languages, prepare',
      'from m3p_jax import config as config_lib',
      'assert languages.get("haw").name == "Hawaiian"',
      'assert languages.resolve("zh-Hans") == "zh_CN"',
      'assert languages.resolve("haw") == "haw"',
      'prepare._define_flags()',
      # One process for all: each imports TensorFlow.
      f'for argv in {[command[2:] for command in commands]}:',
      '  with flagsaver.flagsaver():',
      '    prepare.main(flags.FLAGS(argv))',
      'prepare.prepare("captions", "data", raw_dir="DIR")',
      'from input_pipeline import evaluation_set',
      'import json, pathlib',
      'made = {name: json.loads(pathlib.Path(f"data/{name}/manifest.json")'
      '.read_text()) for name in ("udhr", "folders")}',
      'assert made["udhr"]["languages"] == ["en", "haw"], made',
      'assert sum(made["folders"]["counts"].values()) == 1, made',
      'found = evaluation_set.load("data", "captions", "test", ["all"], 16)',
      'assert found.captions["haw"].texts == ["he ʻāpala ʻulaʻula"]',
      'assert list(found.captions) == ["en", "haw"]',
      'assert "folders" in prepare.names()',
      'import importlib',
      'dataset = importlib.import_module("input_pipeline.datasets.folders")',
      'assert dataset.Builder.name == "folders"',
      'config = base.get_config()',
      *[line for _, block in _blocks('extending.md', 'text')
        for line in block.split('\n')],
      'loss = config_lib.find_loss("hinge", config.tasks.hinge)',
      'import jax',
      'from tests import models',
      'def run(model): return loss(model, models.batch(), jax.random.key(0),'
      ' margin=2.0)',
      'mean, _ = models.call(run)',
      # Two unit vectors are at most 2 apart: at this margin every row pays.
      'assert 0 < float(mean.compute()) <= 4, mean',
      # The new head is trained, saved, and found again.
      'from m3p_jax import checkpoint, train',
      'from tests import toy',
      'made = toy.config(("grading", dict(',
      '    stream="labelled", num_steps=2, data=dict(datasets=("labelled",),',
      '    languages=("en", "de")))), data__image_text__datasets=())',
      'made.tasks = dict(grades=made.tasks.grading_labelled)',
      'train.train_and_evaluate(made, "run")',
      'params, geometry, _ = checkpoint.load("run")',
      'assert geometry.heads == (("grades", "thresholds", 2, 1),)',
      'assert params["heads_grades"]["threshold"].any()',
      'assert config.tasks.grades.data.datasets == ("grades",)')))
  shutil.copytree(config_table.ROOT / 'tests', tmp_path / 'tests',
                  ignore=shutil.ignore_patterns('__pycache__'))
  done = subprocess.run([sys.executable, 'check.py'], cwd=tmp_path, text=True,
                        capture_output=True, check=False)
  assert done.returncode == 0, done.stderr


def test_commands_of_the_pages_are_commands():
  """Programs exist, their flags are theirs, and make's targets too."""
  makefile = (config_table.ROOT / 'Makefile').read_text()
  for page in build.pages():
    for _, block in _blocks(page, 'sh'):
      for line in block.replace('\\\n', ' ').split('\n'):
        module = re.search(r'python -m ([\w.]+)', line)
        if module:
          assert importlib.util.find_spec(module[1]), line
        target = re.match(r'make ([a-z]+)', line)
        if target:
          assert f'\n{target[1]}:' in makefile, line
        for config in re.findall(r'--config=(configs/\w+\.py)', line):
          if 'NAME' not in config:
            assert pathlib.Path(config_table.ROOT, config).exists(), line
        for key in re.findall(r'--config\.([\w.]+)', line):
          assert key in config_lib.known_keys() or key.startswith(
              'tasks.') or key == 'KEY', line
