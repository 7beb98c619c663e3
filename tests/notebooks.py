"""Runs the notebooks: for the tests, and to write their committed outputs.

python -m tests.notebooks NAME [NAME ...]
"""

import os
import pathlib
import re
import sys

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / 'notebooks'
NAMES = tuple(sorted(path.stem for path in FOLDER.glob('*.ipynb')))
_SECONDS = 1_800
_MIMES = ('text/plain', 'image/png')


def read(name: str) -> nbformat.NotebookNode:
  """Returns the committed notebook."""
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def execute(name: str, folder: pathlib.Path) -> nbformat.NotebookNode:
  """Returns the notebook with the outputs of a run on the CPU.

  Args:
    name: of the notebook.
    folder: working directory of the run; `data/` and `runs/` come here.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed.
  """
  notebook = read(name)
  client = nbclient.NotebookClient(
      notebook, timeout=_SECONDS, record_timing=False,
      resources={'metadata': {'path': str(folder)}})
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
  environment.pop('COLAB_RELEASE_TAG', None)
  client.execute(env=environment, cwd=str(folder))
  return notebook


def tidy(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> None:
  """Keeps of the outputs what a reader needs, without paths of the machine."""
  for cell in notebook.cells:
    cell.metadata = {}
    if cell.cell_type != 'code':
      continue
    for output in cell.outputs:
      output.pop('metadata', None)
      if 'data' in output:
        output['metadata'] = {}
        output.data = {mime: value for mime, value in output.data.items()
                       if mime in _MIMES}
      if 'text' in output:
        output.text = _without_paths(output.text, folder)
      if 'text/plain' in output.get('data', {}):
        output.data['text/plain'] = _without_paths(
            output.data['text/plain'], folder)


def _without_paths(text: str, folder: pathlib.Path) -> str:
  text = text.replace(f'{folder}/', '').replace(f'{ROOT}/', '')
  # The time of day, and what absl says where nobody parses flags.
  text = re.sub(r'^([IW]) \d\d:\d\d:\d\d ', r'\1 ', text, flags=re.M)
  text = re.sub(r'^WARNING: Logging before flag parsing.*\n', '', text,
                flags=re.M)
  return text.replace(str(pathlib.Path.home()), '~')


def main() -> None:
  """Executes the notebooks of the command line and writes them back."""
  folder = ROOT / 'build' / 'executed'
  folder.mkdir(parents=True, exist_ok=True)
  for name in sys.argv[1:] or NAMES:
    notebook = execute(name, folder)
    tidy(notebook, folder)
    nbformat.write(notebook, FOLDER / f'{name}.ipynb')


if __name__ == '__main__':
  main()
