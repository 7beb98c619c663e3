"""What each `--mode` is for: the text of `main.py --help`."""

from collections.abc import Sequence
import re
import textwrap
from typing import NamedTuple

from absl import flags

_WIDTH = 79
_RUN = 'python main.py --workdir=runs/quickstart'


class Mode(NamedTuple):
  """One mode of main.py.

  Attributes:
    does: what it does, in a sentence or two.
    flags: names of those that only it reads.
    examples: command lines.
  """
  does: str
  flags: tuple[str, ...]
  examples: tuple[str, ...]


MODES = {
    'train': Mode(
        'trains up to config.num_train_steps, with validation losses; goes on '
        'from the newest checkpoint in the workdir, else starts from '
        'config.init_from.', ('coordinator', 'num_processes', 'process_id'),
        ('python main.py --config=configs/quickstart.py:warm_start '
         '--workdir=runs/mine',
         'python main.py --workdir=runs/mine --config.num_train_steps=600')),
    'evaluate': Mode(
        'searches a prepared split in config.evaluation.languages, prints the '
        'table of recalls and writes retrieval.json and report.html.', (),
        (f'{_RUN} --mode=evaluate',
         f'{_RUN} --mode=evaluate --config.evaluation.dataset=captions '
         '--config.evaluation.languages=en,de '
         '--config.evaluation.mode=rerank')),
    'plan': Mode(
        'prints what a run would need before it is started: memory for each '
        'device, parameters, time.', (),
        ('python main.py --config=configs/pretrain.py --workdir=runs/mine '
         '--mode=plan',)),
    'search': Mode(
        'prints the pictures of config.evaluation.dataset that are nearest to '
        '--query.', ('query', 'k'),
        (f'{_RUN} --mode=search --query="ein roter Apfel"',)),
    'serve': Mode(
        'opens a search page over the collection on this machine (needs '
        'requirements-demo.txt).', ('port', 'host'),
        (f'{_RUN} --mode=serve --port=7860',)),
    'export': Mode(
        'writes the index of the collection for other tools.',
        ('what', 'out'), (f'{_RUN} --mode=export --what=index --out=index',)),
}


def help_text(program: str) -> str:
  """Returns what `--help` prints: the flags of every mode, with examples.

  Args:
    program: path of the program that defined the flags.
  """
  defined = {flag.name: flag for flag
             in flags.FLAGS.get_key_flags_for_module(program)}
  chosen = _choices(defined['mode'])
  of_a_mode = {name for mode in chosen for name in MODES[mode].flags}
  lines = [
      'm3p_jax: one Transformer for pictures and captions in many languages.',
      '', 'usage: python main.py --config=FILE --workdir=DIR [--mode=MODE] '
      '[--config.KEY=VALUE …]', '', 'In every mode:']
  lines += _describe([flag for name, flag in defined.items()
                      if name not in of_a_mode])
  for name in chosen:
    mode = MODES[name]
    lines += ['', *_fill(f'{name}: {mode.does}')]
    lines += _describe([defined[flag] for flag in mode.flags
                        if flag in defined])
    for example in mode.examples:
      lines += ['', *_command(example)]
  return '\n'.join([
      *lines, '', *_fill(
          'Results go to stdout, the rest to stderr. Every config key is '
          'explained in configs/base.py and docs/configs.md; lists are '
          'written with commas. --helpfull lists the flags of the libraries '
          'too.')])


def _describe(chosen: Sequence[flags.Flag]) -> list[str]:
  lines = []
  for flag in chosen:
    # The modes are explained where they stand.
    told = (f'{", ".join(_choices(flag))}; see below'
            if flag.name == 'mode'
            # absl puts <the|choices> in front.
            else re.sub(r'^<[^>]*>: ', '', flag.help))
    default = ('' if flag.default in (None, '')
               else f' (default: {flag.default})')
    lines += textwrap.wrap(
        f'--{flag.name}: {told}{default}', _WIDTH,
        initial_indent='  ', subsequent_indent='      ')
  return lines


def _choices(flag: flags.Flag) -> list[str]:
  assert isinstance(flag, flags.EnumFlag)
  return list(flag.parser.enum_values)


def _fill(text: str) -> list[str]:
  return textwrap.wrap(text, _WIDTH, break_on_hyphens=False)


def _command(text: str) -> list[str]:
  """Returns a command, broken before flags so that a shell reads it as one."""
  first, *rest = text.split(' --')
  lines = [f'    {first}']
  for flag in rest:
    if len(lines[-1]) + len(flag) + 5 <= _WIDTH:
      lines[-1] += f' --{flag}'
    else:
      lines[-1] += ' \\'
      lines.append(f'        --{flag}')
  return lines
