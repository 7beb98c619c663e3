"""The page of all config keys, made from configs/base.py."""

import ast
import pathlib
from typing import Any

from configs import base
from m3p_jax import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'configs.md'
_TASK = 'tasks.NAME'
# Which part of the config a variable of base.py stands for; any other is
# found by the names of its keys.
_PREFIXES = {'config.': '', 'switch.': 'data.image_text.code_switch.'} | {
    f'{section}.': f'{section}.'
    for section in ('model', 'data', 'optimizer', 'evaluation', 'generate')}
_SECTIONS = {
    '': 'The run', 'model': 'Model', 'data': 'Data', 'tasks': 'Tasks',
    'mesh': 'Devices', 'optimizer': 'Optimizer', 'evaluation': 'Evaluation',
    'generate': 'Generation'}
_HEAD = '''# Every config key

Made from [configs/base.py](../configs/base.py) by `make docs`: change it there.
A key is set on the command line by `--config.KEY=VALUE`, lists with commas
(`--config.evaluation.languages=en,de`). `m3p_jax` refuses a key that is not
here and names the nearest.
'''
_TASK_ROWS = {
    'objective': ("''", 'name', 'A file of `m3p_jax/objectives/`.'),
    'stream': ("''", 'name', 'Kind of the rows: `text`, `image_text`, '
               '`parallel`, `labelled`, `pair` (`input_pipeline/streams.py`).'),
    'batch_size': ('1', 'rows a step', 'Over all devices and hosts.'),
    'rows': ("'own'", 'name', "`own`, or `shared` with the stream's other such "
             'tasks, a row read once: a batch size divides the largest.'),
    'weight': ('1.0', 'factor', 'Of the loss, in the sum of all tasks.'),
    'weight_schedule': ("''", 'step:factor, …', 'Factors of the weight, linear '
                        'between the steps: `0:0,1000:1`; empty = 1.'),
    'data': ('{}', '', 'What it reads otherwise than `data.text`, or '
             '`data.image_text` for other kinds; keys as there.'),
    'noise': ('{}', '', 'Adversarial steps on the embedded words (FreeLB): '
              '`steps`, `rate`, `first_norm`, `max_norm`.'),
    'options': ('{}', '', "Keywords of the objective's `loss`.")}


def page() -> str:
  """Returns docs/configs.md.

  Raises:
    ValueError: a key of base.py without a comment.
  """
  said = comments()
  values = config_lib.flatten(base.get_config())
  values.pop('tasks')
  for key in values.keys() - said.keys():
    raise ValueError(f'configs/base.py: {key} has no comment')
  sections = {'tasks': [_row(f'{_TASK}.{name}', *cells)
                        for name, cells in _TASK_ROWS.items()]}
  for key, value in sorted(  # In the order of base.py.
      values.items(), key=lambda item: list(said).index(item[0])):
    section = key.partition('.')[0] if '.' in key else ''
    sections.setdefault(section, []).append(
        _row(key, repr(value), unit(key, value), said[key]))
  lines = [_HEAD]
  for section, rows in sorted(
      sections.items(), key=lambda item: list(_SECTIONS).index(item[0])
      if item[0] in _SECTIONS else len(_SECTIONS)):
    lines += [f'## {_SECTIONS.get(section, section.title())}\n',
              '| key | default | unit | meaning |', '|---|---|---|---|',
              *rows, '']
  return '\n'.join(lines)


def comments() -> dict[str, str]:
  """Returns {key: the comment above it in base.py}."""
  source = pathlib.Path(base.__file__).read_text()
  lines = source.split('\n')
  keys = config_lib.known_keys()
  found = {}
  for node in ast.walk(ast.parse(source)):
    if not (isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Attribute)):
      continue
    above, number = [], node.lineno - 2
    while lines[number].strip().startswith('#'):
      above.insert(0, lines[number].strip(' #'))
      number -= 1
    if not above:
      continue
    for key in _keys(ast.unparse(node.targets[0]), keys):
      found[key] = ' '.join(above)
  return found


def _keys(target: str, keys: list[str]) -> list[str]:
  """Returns the config keys that an assignment of base.py sets."""
  for variable, prefix in _PREFIXES.items():
    if target.startswith(variable):
      key = prefix + target.removeprefix(variable)
      return [key] if key in keys else []
  name = target.partition('.')[2]
  return [key for key in keys if key.endswith(f'.{name}')]


def unit(key: str, value: Any) -> str:
  """Returns the unit of a key, which its name or its type tells."""
  name = key.split('.')[-1]
  if isinstance(value, bool):
    return 'True or False'
  if name.endswith(('language', 'languages')) and isinstance(value, tuple):
    return 'language codes'
  if isinstance(value, tuple):
    return 'names' if name == 'datasets' else 'list'
  for ending, told in (
      ('_steps', 'steps'), ('_batches', 'batches'), ('batch_size', 'rows'),
      ('max_length', 'ids'), ('_layers', 'layers'), ('_heads', 'heads'),
      ('_classes', 'classes'), ('_languages', 'languages'),
      ('_positions', 'positions'), ('_bytes', 'bytes'), ('_size', 'rows'),
      ('width', 'numbers'), ('_dim', 'numbers'), ('dropout', 'share, 0 to 1'),
      ('learning_rate', 'a step'), ('_dir', 'folder'),
      ('rate', 'probability'), ('seed', 'number'), ('top_k', 'candidates'),
      ('_checkpoints', 'checkpoints')):
    if name.endswith(ending):
      return told
  if key.startswith('mesh.'):
    return 'devices'
  return 'text' if isinstance(value, str) else 'number'


def _row(key: str, default: str, of_unit: str, meaning: str) -> str:
  cells = (f'`{key}`', f'`{default}`', of_unit, meaning)
  return '| ' + ' | '.join(
      cell.replace('|', '\\|') for cell in cells) + ' |'


def write() -> bool:
  """Writes the page where it is not current; returns whether it was not."""
  text = page()
  is_stale = not PAGE.exists() or PAGE.read_text() != text
  if is_stale:
    PAGE.write_text(text)
  return is_stale
