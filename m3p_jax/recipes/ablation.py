"""Does code-switching help? `make ablation`: three arms, several seeds.

Each cell (seed, arm) is a whole run on a shortened schedule: warm start,
pre-training, fine-tuning in English. The arms of a seed differ in their
dictionary alone: none, FreeDict, or FreeDict with the translations of each
language shuffled among its words. A second run goes on where this one was.

--config.KEY=VALUE replaces a value in every stage; configs/base.py has the
keys, configs/quickstart.py the values.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
import shutil
import time
from typing import Any, NamedTuple

from absl import flags
import ml_collections

from configs import quickstart
from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax import config as config_lib
from m3p_jax import train
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import query_ranks
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.recipes import command
from m3p_jax.recipes import comparison
from m3p_jax.recipes import data
from m3p_jax.recipes import stages

# The stages of a cell, in their order.
STAGES = tuple(name for name in quickstart.STAGES
               if name.startswith('ablation_'))


def arm_config(stage: str, arm: str, seed: int) -> ml_collections.ConfigDict:
  """Returns the config of one stage of one cell.

  Args:
    stage: one of `STAGES`.
    arm: one of `comparison.ARMS`.
    seed: of everything random, the shuffled dictionary included.
  """
  config = quickstart.get_config(stage)
  config.seed = seed
  switch = config.data.image_text.code_switch
  if arm == 'off':
    switch.rate = 0.0
  elif arm == 'shuffled':
    switch.shuffle_seed = seed
  # A cell is short: one checkpoint, at its end, is enough to go on from.
  config.checkpoint_every_steps = config.num_train_steps
  config.keep_checkpoints = 1
  config.eval_batches = 0
  return config


class Cell(NamedTuple):
  """One run: an arm and a seed."""
  arm: str
  seed: int

  def result(self, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the file of the cell's result."""
    return workdir / 'ablation' / self.arm / f'{self.seed}.json'


def _run_cell(cell: Cell, workdir: pathlib.Path,
              configs: Sequence[ml_collections.ConfigDict]) -> None:
  """Trains, evaluates and writes one cell; goes on from what is there."""
  start = time.monotonic()
  folder = workdir / 'ablation' / cell.arm / f'{cell.seed}'
  for stage, config in zip(STAGES, configs, strict=True):
    train.train_and_evaluate(config, folder / stage)
  weights = weights_lib.load(folder / STAGES[-1])
  c = configs[-1].evaluation
  weights_lib.check_data(weights, configs[-1].data.data_dir, c.dataset)
  retrieval_set = evaluation_set.load(
      configs[-1].data.data_dir, c.dataset, c.split, c.languages, c.max_length,
      max_positions=weights.config.max_positions)
  outcome = retrieval.run(
      weights.params, weights.config, retrieval_set, c.languages, mode='dual',
      batch_size=c.batch_size, protocol=c.protocol,
      language_ids=weights.language_ids)
  query_ranks.update(cell.result(workdir), configs[-1].setting,
                     outcome.queries)
  results.write(cell.result(workdir), {
      'seconds': time.monotonic() - start, 'run': provenance.collect(),
      'mean_recall': {name: one['mean_recall']
                      for name, one in outcome.languages.items()}})
  # A cell's checkpoints are half a gigabyte each, and are done with.
  shutil.rmtree(folder)


def cell_configs(cell: Cell, workdir: pathlib.Path, data_dir: pathlib.Path,
                 overrides: Mapping[str, Any],
                 ) -> list[ml_collections.ConfigDict]:
  """Returns the configs of a cell's stages, ready to run."""
  configs, before = [], None
  for stage in STAGES:
    config = arm_config(stage, cell.arm, cell.seed)
    config.update_from_flattened_dict(dict(overrides))
    config.data.data_dir = str(data_dir)
    folder = workdir / 'ablation' / cell.arm / f'{cell.seed}' / stage
    if before:
      config.init_from = str(before / 'checkpoints')
    before = folder
    configs.append(config)
  return configs


def schedule(configs: Sequence[ml_collections.ConfigDict]) -> str:
  """Returns a cell's shortened schedule in words."""
  parts = []
  for stage, config in zip(STAGES, configs, strict=True):
    tasks = ', '.join(f'{name} {task.batch_size}'
                      for name, task in config.tasks.items())
    parts.append(f'{stage.removeprefix("ablation_")} '
                 f'{config.num_train_steps} steps (rows a step: {tasks})')
  return '; '.join(parts)


def run(workdir: pathlib.Path, data_dir: pathlib.Path, *, num_seeds: int,
        overrides: Mapping[str, Any], limit: int = 0) -> dict[str, Any]:
  """Returns the content of `ablation.json`, every cell done.

  Args:
    workdir: the recipe's; cells lie below `ablation/`.
    data_dir: of prepared sets.
    num_seeds: seeds 0 … num_seeds − 1.
    overrides: config values by dotted key.
    limit: most pictures of a dataset; 0 = all.

  Raises:
    UserError: the seed is set, or earlier cells have other settings.
  """
  if 'seed' in overrides:
    raise errors.UserError(
        '--config.seed: the ablation runs seeds 0 … --seeds − 1; leave it out')
  cells = [Cell(arm, seed)
           for seed in range(num_seeds) for arm in comparison.ARMS]
  recipe = stages.Stages(workdir / 'ablation', len(data.STAGES) + len(cells))
  data.run(recipe, data_dir, limit=limit)
  content: dict[str, Any] = {'cells': {}}
  for cell in cells:
    configs = cell_configs(cell, workdir, data_dir, overrides)
    content['schedule'] = schedule(configs)
    recipe.run(
        f'ablation_{cell.arm}_{cell.seed}',
        functools.partial(_run_cell, cell, workdir, configs),
        title=f'seed {cell.seed}, code-switching {cell.arm}',
        settings=[stages.settings_of(config_lib.to_json(config))
                  for config in configs],
        after=data.STAGES, output=cell.result(workdir), resumes=True)
    content['cells'].setdefault(cell.arm, {})[str(cell.seed)] = results.read(
        cell.result(workdir))
    results.write(workdir / 'ablation.json', content)
  return content


def _ranks(content: Mapping[str, Any], workdir: pathlib.Path):
  """Returns {arm: {seed: ranks}}; None where a cell was run without them."""
  setting = arm_config(STAGES[-1], comparison.ARMS[0], 0).setting
  found = {arm: {seed: query_ranks.load(
      Cell(arm, int(seed)).result(workdir), setting) for seed in cells}
           for arm, cells in content['cells'].items()}
  is_whole = all(one for cells in found.values() for one in cells.values())
  return found if is_whole else None


def text(content: Mapping[str, Any], workdir: pathlib.Path) -> str:
  """Returns the table with what it shows, the schedule and the machine."""
  ranks = _ranks(content, workdir)
  cells = content['cells']
  first = next(iter(cells[comparison.ARMS[0]].values()))
  run_ = first['run']
  minutes = first['seconds'] / 60
  return '\n'.join([
      'Code-switching off, on, and with a shuffled dictionary: mean recall on '
      'the Tux Paint test split, setting en, dual encoder, '
      f'{len(cells[comparison.ARMS[0]])} seeds. Differences are paired by '
      'seed; ± is the half-width of Student\'s 95 % interval over seeds.' + (
          ' In brackets: 95 % bootstrap interval over pictures; p: permutation '
          'test over pictures, seeds together.' if ranks else ''), '',
      comparison.table(cells, quickstart.DICTIONARIES, ranks=ranks), '',
      f'Shortened schedule of a cell: {content["schedule"]}; '
      f'{minutes:.0f} minutes. {run_["machine"]}, commit {run_["commit"]}, '
      f'{run_["date"]}.'])


def main(options: command.Options) -> None:
  """Runs the recipe and prints its table."""
  content = run(
      options.workdir, options.data_dir, num_seeds=flags.FLAGS.seeds,
      limit=options.limit, overrides=options.overrides)
  table = text(content, options.workdir)
  (options.workdir / 'ablation.md').write_text(
      table + '\n', encoding='utf-8')
  if (options.workdir / 'retrieval.json').exists():
    report.write(options.workdir)
  print(table)


if __name__ == '__main__':
  flags.DEFINE_integer(
      'seeds', 5, 'Number of seeds, 0 … seeds-1; finished ones are kept.',
      lower_bound=2)
  command.run(main)
