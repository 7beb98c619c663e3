"""Flags as a user types them: lists by commas, the saved config, typos."""

import ast
import difflib
import pathlib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import config_check
from m3p_jax import modes

_HELP = re.compile(r'--?(\?|h|help|helpshort)$')
_LIBRARY_HELP = re.compile(r'--?(helpfull|helpxml|only_check_args)$')


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
    argv: `sys.argv`, into which the workdir's config is put where `--config`
      was left out (config_flags looks for overrides there).

  Raises:
    UserError: no config, or a key or value in it that cannot be meant.
  """
  if any(_HELP.match(argument) for argument in argv[1:]):
    print(modes.help_text(argv[0]))
    sys.exit(0)
  if not any(_LIBRARY_HELP.match(argument) for argument in argv[1:]):
    _check_names(argv)
    workdir = _value(argv, 'workdir')
    if not workdir:
      raise errors.UserError('--workdir=DIR is missing; see --help')
    config = _value(argv, 'config')
    if config is None:
      saved = pathlib.Path(workdir) / 'config.json'
      if not saved.exists():
        raise errors.UserError(
            f'--config=FILE is missing, and there is no {saved}')
      config = str(saved)
      argv.insert(1, f'--config={config}')
    if config.endswith('.json') and pathlib.Path(config).is_file():
      # config_flags loads files of Python only, one of which reads JSON.
      loader = f'{config_check.__file__}:{pathlib.Path(config).absolute()}'
      argv[:] = [re.sub(rf'^((--?config=)?){re.escape(config)}$',
                        lambda found: found[1] + loader, argument)
                 for argument in argv]
      config = loader
    file = pathlib.Path(config.split(':', 1)[0])
    if not file.is_file():
      there = sorted(str(path) for path in pathlib.Path('configs').glob('*.py')
                     if 'def get_config' in path.read_text())
      near = difflib.get_close_matches(str(file), there, n=1)
      hint = f'did you mean {near[0]}? ' if near else ''
      raise errors.UserError(
          f'--config={config}: {file} is not there; {hint}There are: '
          f'{", ".join(there)}')
  try:
    return console.parse_flags(argv)
  except (AttributeError, KeyError) as error:
    # Raised by config_flags for an override of a key that is not there.
    for argument in argv:
      key = re.match(r'--?(?:no)?config\.([^=]+)', argument)
      if key and _is_unknown(key[1]):
        raise errors.UserError(
            f'{argument}: {config_check.unknown_key(key[1])}') from error
    told = str(error).strip('"').replace("\\'", "'").replace('\\n', '; ')
    raise errors.UserError(f'--config: there is no key {told}') from error


def _check_names(argv: list[str]) -> None:
  """Raises UserError for a flag that does not exist, before all else."""
  for argument in argv[1:]:
    if argument == '--':
      return
    flag = re.match(r'--?([a-z]\w*)(?:=|$)', argument)
    if flag and not {flag[1], flag[1].removeprefix('no')} & set(flags.FLAGS):
      raise errors.UserError(console.unknown_flag(
          flag[1], config_check.keys_that_end(flag[1])))


def _is_unknown(key: str) -> bool:
  sections = {'.'.join(name.split('.')[:end])
              for name in config_check.known_keys()
              for end in range(1, name.count('.') + 2)}
  return not key.startswith('tasks.') and key not in sections


def _value(argv: list[str], name: str) -> str | None:
  """Returns the last value of --name=value or --name value, None if absent."""
  value = None
  for index, argument in enumerate(argv):
    match = re.match(rf'--?{name}(?:=(.*))?$', argument, re.DOTALL)
    if match:
      value = match[1]
      if value is None and index + 1 < len(argv):
        value = argv[index + 1]
  return value
