"""Trains, plans, evaluates, writes, searches, serves, exports: flags only.

python main.py --config=configs/NAME.py --workdir=DIR [--mode=MODE]
  [--config.KEY=VALUE ...]

train     up to config.num_train_steps, with validation losses: goes on from
          the newest checkpoint in DIR, else starts from config.init_from.
evaluate  searches a prepared split in config.evaluation.languages, prints the
          table of recalls and writes retrieval.json and report.html.
generate  writes captions of that split in config.generate.language.
plan      prints what a run would need: memory of a device, parameters, time.
search    prints the pictures of config.evaluation.dataset nearest to --query.
serve     opens a search page on this machine (needs requirements-demo.txt).
export    writes the index of the collection, or small weights.

docs/configs.md explains every config key; lists are written with commas:
--config.evaluation.languages=en,de. Results go to stdout, progress to stderr.
"""

from absl import app
from absl import flags
from ml_collections import config_flags

from input_pipeline import console
from m3p_jax import command_line

config_flags.DEFINE_config_file(
    'config', None, 'File with a `get_config()`, of configs/ or your own, or '
    'the config.json of a run. Default: WORKDIR/config.json.')
flags.DEFINE_string(
    'workdir', None, 'Folder of the run: config.json, metrics.jsonl, '
    'checkpoints/, retrieval.json.')
flags.DEFINE_enum('mode', 'train', list(command_line.MODES), 'What to do.')
flags.DEFINE_string(
    'query', '', 'search: what to search for, in any language.')
flags.DEFINE_integer(
    'k', 10, 'search: how many pictures to show.', lower_bound=1)
flags.DEFINE_bool('json', False, 'search: print one line of JSON.')
command_line.define_host_flags()
flags.DEFINE_integer(
    'port', 7860, 'serve: where the page listens; 0 = any free port.',
    lower_bound=0, upper_bound=65535)
flags.DEFINE_string(
    'host', '127.0.0.1', 'serve: address that the page listens on; 0.0.0.0 = '
    'open to other machines, whose visitors need the token.')
flags.DEFINE_string(
    'token', '', 'serve: what visitors must have. Default: a new one, printed '
    'with the address, where --host is not this machine alone, else none.')
flags.DEFINE_enum(
    'what', 'index', ['index', 'weights'], 'export: index = the vectors, names '
    'and captions of config.evaluation.dataset, and a manifest; weights = '
    'int8, small enough to travel.')
flags.DEFINE_string(
    'out', '', 'export: folder to write, which must not exist.')

if __name__ == '__main__':
  app.run(console.one_line(command_line.run),
          flags_parser=console.one_line(command_line.parse_flags))
