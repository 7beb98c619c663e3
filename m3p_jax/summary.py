"""What main.py tells around a run: its header, result and what is next."""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
import sys
from typing import Any

import jax
import ml_collections
import optax

from input_pipeline import paths
from input_pipeline import streams as streams_lib
import m3p_jax
from m3p_jax import checkpoint
from m3p_jax import metrics
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax.evaluation import protocols

ConfigDict = ml_collections.ConfigDict
_LABEL_WIDTH = 11
_VALIDATION = 'validation/'


def show(rows: Mapping[str, str | Sequence[str]]) -> None:
  """Prints 'label  text' lines on stderr."""
  if not sharding.is_first():
    return
  for label, texts in rows.items():
    for text in [texts] if isinstance(texts, str) else texts:
      print(f'{label:{_LABEL_WIDTH}}{text}', file=sys.stderr)
      label = ''
  sys.stderr.flush()


def command_rows(mode: str, config_flag: Any,
                 given: Mapping[str, Any]) -> dict[str, str]:
  """Returns the header's rows about what was typed.

  `given` are the command line's values by dotted key.
  """
  # A workdir's config is loaded through a file of ours; see command_line.
  name = config_flag.config_filename
  _, is_saved, saved = name.partition('m3p_jax/config.py:')
  if is_saved:
    name = short(paths.of(saved))
  values = ', '.join(f'{key}={value}' for key, value in given.items())
  return {f'm3p_jax {m3p_jax.__version__}': f' {mode}',
          'config': f'{name} with {values}' if values else name}


def training_rows(config: ConfigDict, start: startup.Start, state,
                  mesh: jax.sharding.Mesh,
                  workdir: pathlib.Path) -> dict[str, str | list[str]]:
  """Returns the header's rows about a training run."""
  sizes = [sum(x.size for x in jax.tree.leaves(tree))
           for tree in (state.params, state.frozen)]
  tasks, streams = [], {}
  for name, task in config.tasks.items():
    tasks.append(f'{name}: {task.batch_size} rows of {task.stream}, weight '
                 f'{task.weight:g}' + (task.weight_schedule and
                                       f' times {task.weight_schedule}'))
    streams[streams_lib.key(task)] = (
        task.stream, streams_lib.data_of(config.data, task))
  data = []
  for _, (name, stream) in sorted(streams.items()):
    data.append(f'{name}: {"+".join(stream.datasets)} in '
                f'{_languages(stream.languages)}')
    switch = stream.get('code_switch')
    if switch and (switched := _switched(switch)):
      data.append(f'{name}: {switched}')
  return {
      'devices': f'{mesh.size} × {jax.devices()[0].device_kind}, mesh '
                 f'{dict(mesh.shape)}, activations '
                 f'{startup.model_options(config).dtype}',
      'parameters': f'{sizes[0]:,} trained, {sizes[1]:,} frozen',
      **_adapters(state),
      'data': [f'in {short(paths.of(config.data.data_dir))}', *data],
      'tasks': tasks,
      'start': f'{start.source}; steps {int(state.step):,} to '
               f'{config.num_train_steps:,}',
      **({'fresh': list(start.fresh)} if start.fresh else {}),
      'files': f'{short(workdir)}/: config.json, metrics.jsonl, checkpoints/'}


def _adapters(state) -> dict[str, str]:
  """Returns the row about kernels that learn by adapters, {} for none."""
  factors = optax.tree.get(state.opt_state, 'factors')
  if factors is None:
    return {}
  size = sum(x.size for x in jax.tree.leaves(factors))
  return {'adapters': f'{len(factors)} of the kernels trained, by {size:,} '
                      'numbers'}


def evaluation_rows(config: ConfigDict, workdir: pathlib.Path,
                    weights: str | pathlib.Path) -> dict[str, str]:
  """Returns the header's rows about an evaluation; `weights`: their source."""
  c = config.evaluation
  mode = c.mode + (f', top {c.top_k}' if c.mode == 'rerank' else '')
  rows = {
      'devices': f'{jax.device_count()} × {jax.devices()[0].device_kind}',
      'weights': str(weights),
      'data': f'{c.dataset} ({c.split}) in '
              f'{c.data_dir or config.data.data_dir}, '
              f'{_languages(c.languages)}',
      'protocol': c.protocol}
  if protocols.get(c.protocol).kind == 'retrieval':
    rows['protocol'] += f', {mode}'
    rows['files'] = f'{workdir}/: retrieval.json, report.html'
  return rows


def after_training(workdir: pathlib.Path, config: ConfigDict) -> str:
  """Returns the closing summary: validation losses and the next commands."""
  lines = metrics.read(workdir / 'metrics.jsonl')
  steps = checkpoint.steps(workdir / 'checkpoints')
  rates = [line['examples_per_second'] for line in lines
           if 'examples_per_second' in line]
  rate = f' at {rates[-1]:,.0f} examples/s' if rates else ''
  text = [f'\n{workdir}: trained to step {steps[-1]:,} of '
          f'{config.num_train_steps:,}{rate}', '']
  validated = [line for line in lines
               if any(name.startswith(_VALIDATION) for name in line)]
  if validated:
    text += [*_losses(validated[0], validated[-1]), '']
  return '\n'.join(text + next_commands('train', workdir, config))


def next_commands(mode: str, workdir: pathlib.Path,
                  config: ConfigDict) -> list[str]:
  """Returns what to look at and to type after a mode, line by line."""
  c, run = config.evaluation, command(workdir)
  data_dir = c.data_dir or config.data.data_dir
  learned = {task.objective for task in config.tasks.values()}
  if mode == 'train' and learned == {'captioning'}:
    return [f'Write:     {run} --mode=generate']
  lines = []
  if mode == 'evaluate':
    lines.append(f'Report:    {workdir}/report.html')
  elif not (paths.of(data_dir) / c.dataset / 'manifest.json').exists():
    lines.append(f'Prepare:   {_python()} -m input_pipeline.prepare '
                 f'--dataset={c.dataset} --data_dir={data_dir}')
  if mode == 'train':
    lines.append(f'Evaluate:  {run} --mode=evaluate')
    if (workdir / 'tensorboard').exists():
      lines.append(f'Curves:    tensorboard --logdir={workdir}')
  if protocols.get(c.protocol).kind == 'retrieval':
    lines.append(f'Search:    {run} --mode=search --query="ein roter Apfel"')
  return lines


def _losses(first: Mapping[str, float],
            last: Mapping[str, float]) -> list[str]:
  """Returns the table of validation metrics, first and last."""
  names = [name for name in last if name.startswith(_VALIDATION)]
  width = max(map(len, names)) - len(_VALIDATION)
  rows = [['validation', *(f'step {line["step"]:,}' for line in (first, last))]]
  for name in names:
    rows.append([name.removeprefix(_VALIDATION), *(
        f'{line[name]:.3f}' if name in line else '–'
        for line in (first, last))])
  return [f'{name:{width}}  {one:>12}  {other:>12}'
          for name, one, other in rows]


def _switched(switch: ConfigDict) -> str:
  """Returns how much of which captions is switched; '' = nothing."""
  is_one = switch.mode == 'one'
  if not switch.sentence_rate or not (switch.rate or is_one):
    return ''
  words = 'one word' if is_one else f'{switch.rate:.0%} of the words'
  captions = 'every caption' if switch.sentence_rate == 1 else (
      f'{switch.sentence_rate:.0%} of captions')
  return f'{words} of {captions} switched into {_languages(switch.languages)}'


def _languages(codes: Sequence[str]) -> str:
  if len(codes) <= 8:
    return ', '.join(codes)
  return f'{len(codes)} languages ({", ".join(codes[:6])}, …)'


def command(workdir: pathlib.Path) -> str:
  """Returns how main.py is called for a run, as it is typed here."""
  return f'{_python()} main.py --workdir={short(workdir)}'


def _python() -> str:
  """Returns what to type for the interpreter that runs this.

  `make` calls the environment's own, which is `python` for nobody else.
  """
  if shutil.which('python') == sys.executable:
    return 'python'
  return short(pathlib.Path(sys.executable))


def short(path: pathlib.Path) -> str:
  """Returns the path below the working directory, where it lies there."""
  if paths.is_url(path):
    return str(path)
  path, here = path.absolute(), pathlib.Path.cwd()
  return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
