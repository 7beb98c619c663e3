"""Every command and every Python block of the pages runs, as it is typed.

A block that needs a pod, a network or many minutes has a comment before it
that says so: <!-- test: skip, it needs a TPU pod -->, and so has one that is on
another page too. The others run in one `docs_home`, in the order of the pages,
README first: what a block makes is there for those that follow.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from tests import docs_home

ROOT = docs_home.ROOT
# Its blocks change the checkout; `test_docs.py` types them into another.
_ELSEWHERE = 'docs/extending.md'
_SECONDS = 300


class Block(NamedTuple):
  """A block of code of a page."""
  page: str
  line: int
  language: str
  text: str
  skip: str


@functools.cache
def blocks() -> list[Block]:
  """Returns the blocks of shell and Python of all pages."""
  found = []
  for path in (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))):
    text, page = path.read_text(), str(path.relative_to(ROOT))
    for match in re.finditer(
        r'(?:<!-- test: skip, (.+?) -->\n)?^( *)```(sh|python)\n(.*?)^ *```',
        text, re.S | re.M):
      skip, indent, language, content = match.groups()
      found.append(Block(
          page, text[:match.start(2)].count('\n') + 1, language,
          re.sub(f'^{indent}', '', content, flags=re.M), skip or ''))
  return found


def _cases(page: str | None = None):
  return [pytest.param(block, id=f'{block.page}:{block.line}')
          for block in blocks() if not block.skip
          and block.page != _ELSEWHERE and page in (None, block.page)]


def test_what_is_not_run_says_why():
  skipped = [block for block in blocks() if block.skip]
  assert len(_cases()) >= 20
  for block in skipped:
    same = re.fullmatch(r'the same command as in (.+)', block.skip)
    if same:
      assert _programs(block) <= set().union(*(
          _programs(case.values[0]) for case in _cases(same[1]))), block
    else:
      assert re.search(r'minutes|network|TPU|until it is stopped|stand for',
                       block.skip), block


def _programs(block: Block) -> set[str]:
  """Returns the programs that a block runs, or the modules it imports."""
  return set(re.findall(
      r'(?:python -m [\w.]+(?: (?:im|ex)port)?|python main\.py|--mode=\w+'
      r'|^from [\w.]+ import \w+)', block.text, re.M))


@pytest.fixture(scope='module')
def home(python, small_run, tmp_path_factory) -> pathlib.Path:
  """Returns a filled home."""
  folder = tmp_path_factory.mktemp('home')
  docs_home.make_checkout(folder)
  (folder / '.venv' / 'bin').mkdir(parents=True)
  shutil.copy(python, folder / '.venv' / 'bin' / 'python')
  for name in ('.run', '.demo'):
    (folder / '.venv' / name).touch()
  subprocess.run([python, '-m', 'tests.docs_home', small_run], cwd=folder,
                 check=True)
  return folder


@pytest.mark.parametrize('block', _cases())
def test_block_runs_as_it_is_typed(block, home, python):
  if re.search('--to=(m3p|volta)', block.text):
    pytest.importorskip('torch', reason='writes .pth')
  environment = {
      name: value for name, value in os.environ.items()
      if name not in ('VENV', 'MAKEFLAGS', 'MAKELEVEL', 'WORKDIR', 'DATA_DIR',
                      'PICTURES', 'QUERY', 'ARGS')}
  environment['PATH'] = f'{python.parent}{os.pathsep}{os.environ["PATH"]}'
  command = (['bash', '-euo', 'pipefail', '-c', block.text]
             if block.language == 'sh' else [python, '-'])
  done = subprocess.run(
      command, input=block.text if block.language == 'python' else '',
      cwd=home, env=environment, text=True, capture_output=True,
      timeout=_SECONDS, check=False)
  assert done.returncode == 0, f'{block.text}\n{done.stdout}\n{done.stderr}'
