"""What main.py does with its flags: lists, the saved config, typos, modes."""

import ast
import difflib
import importlib
import pathlib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs import base
from input_pipeline import console
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import config as config_lib

# Each mode, and the flags that it alone reads.
MODES = {
    'train': (), 'evaluate': (), 'generate': (), 'plan': (),
    'search': ('query', 'k', 'json'), 'serve': ('port', 'host', 'token'),
    'export': ('what', 'out')}
# What one process does, whatever there is beside it.
_ALONE = ('plan', 'serve')
_HOST_FLAGS = ('coordinator', 'num_processes', 'process_id', 'wait_seconds')
_HELP = re.compile(r'--?(\?|help\w*|only_check_args)$')


class ListParser(flags.ArgumentParser):
  """Parses 'en,de' as well as "('en', 'de')" and '1,2' into a tuple."""

  def parse(self, argument: Any) -> tuple:
    if isinstance(argument, tuple):
      return argument
    if not argument:
      return ()
    try:
      value = ast.literal_eval(argument)
    except (ValueError, SyntaxError) as error:
      if argument[0] in '([':
        raise ValueError(f'{argument!r} is not a list') from error
      return tuple(part.strip() for part in argument.split(','))
    return tuple(value) if isinstance(value, tuple | list) else (value,)

  def flag_type(self) -> str:
    return 'list'


config_flags.register_flag_parser_for_type(tuple, ListParser())


def parse_flags(argv: list[str]) -> list[str]:
  """Returns the arguments that are no flags; parses the others.

  Args:
    argv: `sys.argv`, in which the config comes first, and is the workdir's
      where `--config` was left out (config_flags looks for overrides there).

  Raises:
    UserError: no config, or a key or value in it that cannot be meant.
  """
  if not any(_HELP.match(argument) for argument in argv[1:]):
    _check_names(argv)
    config, workdir, rest = _split(argv)
    if not workdir:
      raise errors.UserError('--workdir=DIR is missing; see --help')
    argv[1:] = [f'--config={_find(config, workdir)}', f'--workdir={workdir}',
                *rest]
  try:
    return console.parse_flags(argv)
  except (AttributeError, KeyError) as error:
    # Raised by config_flags for an override of a key that is not there.
    known = config_lib.known_keys()
    for argument in argv:
      key = re.match(r'--?(?:no)?config\.([^=]+)', argument)
      if key and not f'{key[1]}.'.startswith('tasks.') and not any(
          f'{name}.'.startswith(f'{key[1]}.') for name in known):
        raise errors.UserError(
            f'{argument}: {config_lib.unknown_key(key[1])}') from error
    message = str(error).strip('"').replace("\\'", "'").replace('\\n', '; ')
    raise errors.UserError(
        f'--config: there is no key {message}') from error


def define_host_flags() -> None:
  """Defines the flags of several processes that work as one."""
  flags.DEFINE_string(
      'coordinator', '', 'HOST:PORT of process 0, where several processes work '
      'as one. A TPU pod, Slurm and Open MPI need none of these three flags.')
  flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
  flags.DEFINE_integer(
      'process_id', None, 'Which of them this one is, from 0.')
  flags.DEFINE_integer(
      'wait_seconds', 50, 'How long to wait for the others.', lower_bound=1)
  for name in _HOST_FLAGS:
    # So that --help shows them: they are the program's, not this module's.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def connect(require: str) -> None:
  """Connects the processes as these flags say; see `sharding.connect`."""
  from m3p_jax import sharding
  errors.check_choice('config.require', require, ('', *sharding.PLATFORMS))
  f = flags.FLAGS
  sharding.connect(f.coordinator, f.num_processes, f.process_id,
                   wait_seconds=f.wait_seconds, require=require)


def _check_names(argv: list[str]) -> None:
  """Raises UserError for a flag that does not exist, before all else."""
  for argument in argv[1:]:
    if argument == '--':
      return
    flag = re.match(r'--?([a-z]\w*)(?:=|$)', argument)
    if flag and not {flag[1], flag[1].removeprefix('no')} & set(flags.FLAGS):
      raise errors.UserError(console.unknown_flag(flag[1], [
          f'config.{key}' for key in config_lib.known_keys()
          if key.split('.')[-1] == flag[1]]))


def _split(argv: list[str]) -> tuple[str | None, str | None, list[str]]:
  """Returns (config, workdir, all other arguments)."""
  first = flags.FlagValues()
  first.set_gnu_getopt()
  for name in ('config', 'workdir'):
    flags.DEFINE_string(name, None, '', flag_values=first)
  rest = first(argv, known_only=True)
  return first.config, first.workdir, rest[1:]


def _find(config: str | None, workdir: str) -> str:
  """Returns the config as config_flags takes it: a file of Python."""
  if config is None:
    config = str(paths.of(workdir) / 'config.json')
    if _is_index(workdir):
      config = base.__file__  # Its manifest says what it was made with.
    elif not paths.of(config).exists():
      raise errors.UserError(
          f'--config=FILE is missing, and there is no {config}')
  if config.endswith('.json') and paths.of(config).is_file():
    return f'{config_lib.__file__}:{paths.of(config).absolute()}'
  file = pathlib.Path(config.split(':', 1)[0])
  if not file.is_file():
    there = sorted(str(path) for path in pathlib.Path('configs').glob('*.py')
                   if 'def get_config' in path.read_text())
    near = difflib.get_close_matches(str(file), there, n=1)
    hint = f'did you mean {near[0]}? ' if near else ''
    raise errors.UserError(
        f'--config={config}: {file} is not there; {hint}There are: '
        f'{", ".join(there)}')
  return config


def _is_index(workdir: str) -> bool:
  """Returns whether a folder is an exported index, and no run."""
  return (paths.of(workdir) / 'vectors.npy').exists()


def _check(argv: list[str]) -> None:
  f = flags.FLAGS
  if len(argv) > 1:
    hint = f'; did you mean --mode={argv[1]}?' if argv[1] in MODES else ''
    raise errors.UserError(f'unexpected argument {argv[1]!r}: flags are '
                           f'written --name=value{hint}')
  for mode, names in MODES.items():
    for name in names:
      if f[name].present and f.mode != mode:
        raise errors.UserError(f'--{name} needs --mode={mode}')
  for name in _HOST_FLAGS:
    if f[name].present and f.mode in _ALONE:
      raise errors.UserError(f'--{name}: --mode={f.mode} is one process')
  if _is_index(f.workdir) and f.mode not in ('search', 'serve'):
    raise errors.UserError(
        f'--mode={f.mode}: {f.workdir} is an exported index; allowed: '
        '--mode=search or --mode=serve')
  if f.mode == 'search' and not f.query:
    raise errors.UserError('--mode=search needs --query="..."')
  if f.mode == 'export' and not f.out:
    raise errors.UserError('--mode=export needs --out=DIR')


def run(argv: list[str]) -> None:
  """Runs the mode that the flags name.

  Raises:
    UserError: flags that do not belong together.
  """
  _check(argv)
  f = flags.FLAGS
  if not f['verbosity'].present:
    console.show_own_logs()
  given = config_flags.get_override_values(f['config'])
  # Imported here, so that --help and a wrong flag answer at once.
  from m3p_jax import sharding
  from m3p_jax import summary
  config, workdir = f.config, paths.of(f.workdir)
  if f.mode not in _ALONE:
    connect(config.require)
  summary.show(summary.command_rows(f.mode, f['config'], given))
  if f.mode == 'train':
    from m3p_jax import train
    train.train_and_evaluate(config, workdir, given=given)
    if sharding.is_first():  # Others may see its last files later.
      print(summary.after_training(workdir, config))
  elif f.mode == 'evaluate':
    from m3p_jax.evaluation import protocols
    from m3p_jax.evaluation import weights
    kind = protocols.get(config.evaluation.protocol).kind
    summary.show(summary.evaluation_rows(
        config, workdir, weights.source(config, workdir, given=given)))
    importlib.import_module(f'm3p_jax.evaluation.{kind}').evaluate(
        config, workdir, given=given)
    if kind == 'retrieval':
      print('\n'.join(['', *summary.next_commands(
          'evaluate', workdir, config)]))
  elif f.mode == 'generate':
    from m3p_jax.generation import captions
    captions.generate(config, workdir, given=given)
  elif f.mode == 'plan':
    from m3p_jax.planning import plan
    plan.plan(config, workdir)
  elif f.mode == 'serve':
    from m3p_jax.serve import server
    server.serve(workdir, host=f.host, port=f.port, token=f.token,
                 config=config, given=given)
  else:
    from m3p_jax.search import commands
    if f.mode == 'export':
      export = (commands.export_weights if f.what == 'weights'
                else commands.export_index)
      export(workdir, f.out, config=config, given=given)
    else:
      commands.search(workdir, f.query, f.k, config=config, given=given,
                      as_json=f.json)
