"""Trains, evaluates and searches: flags only, the work is in `m3p_jax`.

python main.py --config=configs/NAME.py --workdir=DIR [--mode=MODE]
  [--config.KEY=VALUE ...]

`--config` may be left out where DIR has a config.json. Lists are written with
commas: --config.evaluation.languages=en,de. Results go to stdout, progress to
stderr.
"""

from absl import app
from absl import flags
from ml_collections import config_flags

from input_pipeline import errors
from m3p_jax import command_line
from m3p_jax import progress

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'File with a `get_config()`, of configs/ or your own; one '
    'key is changed by --config.KEY=VALUE. Default: WORKDIR/config.json.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run: config.json, metrics.jsonl, '
    'checkpoints/, retrieval.json. Training goes on from what is there.')
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate', 'plan', 'search'],
    'train: up to config.num_train_steps, with validation losses. evaluate: '
    'retrieval in config.evaluation.languages, into retrieval.json. plan: '
    'what a step takes on config.plan.topology, into plan.json. search: '
    'the pictures of config.evaluation.dataset nearest to --query.')
_QUERY = flags.DEFINE_string(
    'query', '', 'What to search for, in any language (--mode=search).')
_K = flags.DEFINE_integer(
    'k', 10, 'How many pictures to show (--mode=search).', lower_bound=1)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of process 0, where several processes train '
    'as one (--mode=train). A TPU pod needs none of these three flags.')
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'How many processes there are (--coordinator).')
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Which of them this one is, from 0 (--coordinator).')


def main(argv):
  """Checks the flags and hands over to the mode."""
  if len(argv) > 1:
    raise errors.UserError(
        f'unexpected argument {argv[1]!r}: flags are written --name=value')
  if not flags.FLAGS['verbosity'].present:
    progress.show_own_logs()
  workdir, config = _WORKDIR.value, _CONFIG.value
  given = config_flags.get_override_values(flags.FLAGS['config'])
  if _QUERY.value and _MODE.value != 'search':
    raise errors.UserError('--query needs --mode=search')
  # Imported here, so that --help and a wrong flag answer at once.
  if _MODE.value == 'train':
    from m3p_jax import hosts
    from m3p_jax import train
    hosts.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    train.train_and_evaluate(config, workdir, given=given)
  elif _MODE.value == 'evaluate':
    from m3p_jax.evaluation import retrieval
    retrieval.evaluate(config, workdir, given=given)
  elif _MODE.value == 'plan':
    from m3p_jax import plan
    plan.plan(config, workdir, given=given)
  else:
    if not _QUERY.value:
      raise errors.UserError('--mode=search needs --query="..."')
    from m3p_jax import search
    search.main_search(
        workdir, _QUERY.value, _K.value, config=config, given=given)


if __name__ == '__main__':
  app.run(command_line.one_line_errors(main),
          flags_parser=command_line.one_line_errors(command_line.parse_flags))
