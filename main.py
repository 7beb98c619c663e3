"""Trains, plans, evaluates, searches, serves and exports: flags only.

The work is in `m3p_jax`; `--help` tells of every mode.

python main.py --config=configs/NAME.py --workdir=DIR [--mode=MODE]
  [--config.KEY=VALUE ...]

`--config` may be left out where DIR has a config.json. Lists are written with
commas: --config.evaluation.languages=en,de. Results go to stdout, progress to
stderr.
"""

import pathlib

from absl import app
from absl import flags
from ml_collections import config_flags

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import command_line
from m3p_jax import modes

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'File with a `get_config()`, of configs/ or your own, or '
    'the config.json of a run; one key is changed by --config.KEY=VALUE. '
    'Default: WORKDIR/config.json.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: config.json, metrics.jsonl, '
    'checkpoints/, retrieval.json. Training goes on from what is there.')
_MODE = flags.DEFINE_enum(
    'mode', 'train', list(modes.MODES), 'What to do.')
_QUERY = flags.DEFINE_string(
    'query', '', 'What to search for, in any language.')
_K = flags.DEFINE_integer(
    'k', 10, 'How many pictures to show.', lower_bound=1)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of process 0, where several processes train '
    'as one. A TPU pod needs none of these three flags.')
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'How many processes there are (--coordinator).')
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Which of them this one is, from 0 (--coordinator).')
_PORT = flags.DEFINE_integer(
    'port', 7860, 'Where the page listens; 0 = any free port.',
    lower_bound=0, upper_bound=65535)
_HOST = flags.DEFINE_string(
    'host', '127.0.0.1', 'Address that the page listens on; 0.0.0.0 = open to '
    'other machines, without a password.')
_WHAT = flags.DEFINE_enum(
    'what', 'index', ['index'], 'index: the vectors, names and captions of '
    'config.evaluation.dataset, and a manifest.')
_OUT = flags.DEFINE_string(
    'out', '', 'Folder to write, which must not exist.')
# Flags that belong to one mode.
_OWN_FLAGS = {flag: name for name, mode in modes.MODES.items()
              for flag in mode.flags}


def main(argv):
  """Checks the flags and hands over to the mode."""
  if len(argv) > 1:
    hint = (f'; did you mean --mode={argv[1]}?' if argv[1] in modes.MODES
            else '')
    raise errors.UserError(f'unexpected argument {argv[1]!r}: flags are '
                           f'written --name=value{hint}')
  if not flags.FLAGS['verbosity'].present:
    console.show_own_logs()
  workdir, config = _WORKDIR.value, _CONFIG.value
  given = config_flags.get_override_values(flags.FLAGS['config'])
  for name, mode in _OWN_FLAGS.items():
    if flags.FLAGS[name].present and _MODE.value != mode:
      raise errors.UserError(f'--{name} needs --mode={mode}')
  if _MODE.value == 'search' and not _QUERY.value:
    raise errors.UserError('--mode=search needs --query="..."')
  if _MODE.value == 'export' and not _OUT.value:
    raise errors.UserError('--mode=export needs --out=DIR')
  # Imported here, so that --help and a wrong flag answer at once.
  from m3p_jax.training import summary
  summary.show(summary.command_rows(
      _MODE.value, flags.FLAGS['config'], given))
  if _MODE.value == 'train':
    _train(config, workdir, given)
  elif _MODE.value == 'evaluate':
    from m3p_jax.evaluation import retrieval
    from m3p_jax.evaluation import weights
    summary.show(summary.evaluation_rows(
        config, workdir,
        weights.source(config, pathlib.Path(workdir), given=given)))
    retrieval.evaluate(config, workdir, given=given)
    print('\n'.join(['', *summary.next_commands('evaluate', workdir, config)]))
  elif _MODE.value == 'plan':
    from m3p_jax import plan
    plan.plan(config, workdir)
  elif _MODE.value == 'serve':
    from m3p_jax.serve import server
    server.serve(workdir, host=_HOST.value, port=_PORT.value, config=config,
                 given=given)
  elif _MODE.value == 'export':
    from m3p_jax import search
    search.main_export(workdir, _OUT.value, config=config, given=given)
  else:
    from m3p_jax import search
    search.main_search(
        workdir, _QUERY.value, _K.value, config=config, given=given)


def _train(config, workdir, given):
  from m3p_jax import hosts
  from m3p_jax import train
  from m3p_jax.training import summary
  hosts.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  train.train_and_evaluate(config, workdir, given=given)
  if hosts.is_first():
    print(summary.after_training(workdir, config))


if __name__ == '__main__':
  app.run(console.one_line(main),
          flags_parser=console.one_line(command_line.parse_flags))
