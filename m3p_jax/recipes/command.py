"""The command line that the recipes share."""

from collections.abc import Callable, Sequence
import functools
import pathlib
import sys
from typing import Any, NamedTuple

from absl import app
from absl import flags
from ml_collections import config_flags

from configs import base
from input_pipeline import console
from input_pipeline import errors
from m3p_jax import config as config_lib
from m3p_jax import startup


class Options(NamedTuple):
  """What the user asked for.

  Attributes:
    workdir: folder of the results.
    data_dir: folder of prepared datasets and dictionaries.
    limit: most pictures of a dataset; 0 = all.
    overrides: config values of every stage, by dotted key.
  """
  workdir: pathlib.Path
  data_dir: pathlib.Path
  limit: int
  overrides: dict[str, Any]


def run(recipe: Callable[[Options], None], *,
        workdir: str = 'runs/quickstart') -> None:
  """Parses the flags and runs a recipe; a user's mistake is one line.

  Args:
    recipe: does it.
    workdir: where the results go by default.
  """

  def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
      raise errors.UserError(
          f'unexpected argument {argv[1]!r}: flags are written --name=value')
    console.show_own_logs()
    startup.use_compilation_cache()
    values = flags.FLAGS
    try:
      recipe(Options(
          pathlib.Path(values.workdir).absolute(),
          pathlib.Path(values.data_dir).absolute(), values.limit,
          config_flags.get_override_values(values['config'])))
    except KeyboardInterrupt:
      print('\nstopped; the same command goes on from here', file=sys.stderr)
      sys.exit(130)

  app.run(console.one_line(main),
          flags_parser=console.one_line(
              functools.partial(_parse, workdir=workdir)))


def _define_flags(workdir: str) -> None:
  flags.DEFINE_string(
      'workdir', workdir, 'Folder of the results; a run found there '
      'goes on.')
  flags.DEFINE_string(
      'data_dir', 'data', 'Folder of prepared datasets and dictionaries.')
  flags.DEFINE_integer(
      'limit', 0, 'Most pictures of a dataset; 0 = all.', lower_bound=0)
  config_flags.DEFINE_config_dict(
      'config', base.get_config(), 'Values for every stage, in place of those '
      'of the recipe: --config.KEY=VALUE')
  for name in ('workdir', 'data_dir', 'limit'):
    # So that --help shows them: it is the recipe's, not this module's.
    flags.FLAGS.register_key_flag_for_module(
        sys.argv[0], flags.FLAGS[name])


def _parse(argv: list[str], *, workdir: str) -> list[str]:
  try:
    _define_flags(workdir)
    return console.parse_flags(argv)
  except (AttributeError, KeyError) as error:
    # config_flags' answer to an override of a key that is not there.
    for argument in argv:
      key = argument.removeprefix('--config.').partition('=')[0]
      if key != argument and key not in config_lib.known_keys():
        raise errors.UserError(
            f'{argument}: {config_lib.unknown_key(key)}') from error
    raise
