"""Does code-switching help? `make ablation`: three arms, several seeds.

Each run (arm, seed) is whole, on a shortened schedule: warm start,
pre-training, fine-tuning in English. The arms of a seed differ in their
dictionary alone: none, FreeDict, or FreeDict with the translations of each
language shuffled among its words. A second call goes on where this one was.

--config.KEY=VALUE replaces a value in every stage; configs/base.py has the
keys, configs/quickstart.py the values.

Letters: S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
import functools
import math
import time
from typing import Any, NamedTuple

from absl import flags
import ml_collections
import numpy as np
from scipy import stats

from configs import quickstart
from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import paths
from m3p_jax import config as config_lib
from m3p_jax import sharding
from m3p_jax import train
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.recipes import quickstart as quickstart_recipe
from m3p_jax.recipes import stages

# The stages of a run, in their order.
STAGES = tuple(name for name in quickstart.STAGES
               if name.startswith('ablation_'))
ARMS = ('off', 'on', 'shuffled')
_COMPARISONS = (('on', 'off'), ('shuffled', 'off'), ('on', 'shuffled'))


class Run(NamedTuple):
  """One arm with one seed."""
  arm: str
  seed: int

  def folder(self, workdir: paths.Path) -> paths.Path:
    """Returns where it trains."""
    return workdir / 'ablation' / self.arm / f'{self.seed}'

  def result(self, workdir: paths.Path) -> paths.Path:
    """Returns the file of its result."""
    return self.folder(workdir).with_suffix('.json')

  def config(self, stage: str) -> ml_collections.ConfigDict:
    """Returns the config of a stage."""
    config = quickstart.get_config(stage)
    config.seed = self.seed
    switch = config.data.image_text.code_switch
    if self.arm == 'off':
      switch.rate = 0.0
    elif self.arm == 'shuffled':
      switch.shuffle_seed = self.seed
    # One checkpoint, at the stage's end, is enough to go on from.
    config.checkpoint_every_steps = config.num_train_steps
    config.keep_checkpoints = 1
    config.eval_batches = 0
    return config

  def configs(self, workdir: paths.Path, data_dir: paths.Path,
              overrides: Mapping[str, Any]) -> list[ml_collections.ConfigDict]:
    """Returns the configs of its stages, ready to run."""
    configs, before = [], None
    for stage in STAGES:
      config = self.config(stage)
      config.update_from_flattened_dict(dict(overrides))
      config.data.data_dir = str(data_dir)
      if before:
        config.init_from = str(before / 'checkpoints')
      before = self.folder(workdir) / stage
      configs.append(config)
    return configs


def run(workdir: paths.Path, data_dir: paths.Path, *, num_seeds: int,
        overrides: Mapping[str, Any], limit: int = 0) -> dict[str, Any]:
  """Returns the content of `ablation.json`, every run done.

  Raises:
    UserError: the seed is set, or earlier runs have other settings.
  """
  if 'seed' in overrides:
    raise errors.UserError(
        '--config.seed: the ablation runs seeds 0 … --seeds − 1; leave it out')
  runs = [Run(arm, seed) for seed in range(num_seeds) for arm in ARMS]
  recipe = stages.Stages(workdir / 'ablation',
                         len(quickstart_recipe.DATA_STAGES) + len(runs))
  quickstart_recipe.run_data(recipe, data_dir, limit=limit)
  content: dict[str, Any] = {'cells': {}}
  for one in runs:
    configs = one.configs(workdir, data_dir, overrides)
    content['schedule'] = _schedule(configs)
    recipe.run(
        f'ablation_{one.arm}_{one.seed}',
        functools.partial(_train_and_evaluate, one, workdir, configs),
        title=f'seed {one.seed}, code-switching {one.arm}',
        settings=[stages.settings_of(config_lib.to_json(config))
                  for config in configs],
        after=quickstart_recipe.DATA_STAGES, output=one.result(workdir),
        resumes=True)
    content['cells'].setdefault(one.arm, {})[str(one.seed)] = results.read(
        one.result(workdir))
    results.write(workdir / 'ablation.json', content)
  return content


def _train_and_evaluate(one: Run, workdir: paths.Path,
                        configs: Sequence[ml_collections.ConfigDict]) -> None:
  """Trains, evaluates and writes one run; goes on from what is there."""
  start = time.monotonic()
  folder, result = one.folder(workdir), one.result(workdir)
  for stage, config in zip(STAGES, configs, strict=True):
    train.train_and_evaluate(config, folder / stage)
  weights = weights_lib.load(folder / STAGES[-1])
  c = configs[-1].evaluation
  weights_lib.check_data(weights, configs[-1].data.data_dir, c.dataset)
  retrieval_set = evaluation_set.load(
      configs[-1].data.data_dir, c.dataset, c.split, c.languages, c.max_length,
      max_positions=weights.config.max_positions)
  outcome = scoring.run(
      scoring.make_scorer(weights, retrieval_set, c.languages, c), mode='dual')
  if not sharding.is_first():
    return
  results.update_ranks(result, configs[-1].setting, outcome.queries)
  results.write(result, {
      'seconds': time.monotonic() - start, 'run': provenance.collect(),
      'mean_recall': {name: language['mean_recall']
                      for name, language in outcome.languages.items()}})
  # A run's checkpoints are half a gigabyte each, and are done with.
  paths.remove_tree(folder)


def _schedule(configs: Sequence[ml_collections.ConfigDict]) -> str:
  """Returns a run's shortened schedule in words."""
  parts = []
  for stage, config in zip(STAGES, configs, strict=True):
    tasks = ', '.join(f'{name} {task.batch_size}'
                      for name, task in config.tasks.items())
    parts.append(f'{stage.removeprefix("ablation_")} '
                 f'{config.num_train_steps} steps (rows a step: {tasks})')
  return '; '.join(parts)


def _ranks(content: Mapping[str, Any], workdir: paths.Path):
  """Returns {arm: {seed: ranks}}; None where a run is without them."""
  setting = Run(ARMS[0], 0).config(STAGES[-1]).setting
  found = {arm: {seed: results.load_ranks(
      Run(arm, int(seed)).result(workdir), setting) for seed in runs}
           for arm, runs in content['cells'].items()}
  is_whole = all(one for runs in found.values() for one in runs.values())
  return found if is_whole else None


def text(content: Mapping[str, Any], workdir: paths.Path) -> str:
  """Returns the table with what it shows, the schedule and the machine."""
  ranks = _ranks(content, workdir)
  runs = content['cells']
  first = next(iter(runs[ARMS[0]].values()))
  where = first['run']
  return '\n'.join([
      'Code-switching off, on, and with a shuffled dictionary: mean recall on '
      'the Tux Paint test split, setting en, dual encoder, '
      f'{len(runs[ARMS[0]])} seeds. Differences are paired by '
      'seed; ± is the half-width of Student\'s 95 % interval over seeds.' + (
          ' In brackets: 95 % bootstrap interval over pictures; p: permutation '
          'test over pictures, seeds together.' if ranks else ''), '',
      table(runs, quickstart.DICTIONARIES, ranks=ranks), '',
      f'Shortened schedule of a run: {content["schedule"]}; '
      f'{first["seconds"] / 60:.0f} minutes. {where["machine"]}, commit '
      f'{where["commit"]}, {where["date"]}.'])


def table(runs: Mapping[str, Mapping[str, Any]],
          dictionaries: Collection[str], *,
          ranks: Mapping[str, Mapping[str, Mapping[str, statistics.Language]]]
          | None = None) -> str:
  """Returns the table: arms, then paired differences with intervals.

  Args:
    runs: by arm and seed (a string), each with `mean_recall` by language;
      two seeds or more, the same of every arm.
    dictionaries: languages that captions were switched into.
    ranks: {arm: {seed: {language: queries}}}, of the same runs; adds each
      arm's bootstrap interval over pictures, and the p of the paired test over
      pictures, all seeds together. None = without.
  """
  seeds = sorted(runs[ARMS[0]])
  shown = _groups(list(runs[ARMS[0]][seeds[0]]['mean_recall']), dictionaries)
  values = {
      (arm, title): np.array([
          np.mean([runs[arm][seed]['mean_recall'][name] for name in names])
          for seed in seeds])
      for arm in ARMS for title, names in shown.items()}

  def queries(arm, title):
    return [ranks[arm][seed][name]
            for seed in seeds for name in shown[title]]

  def value(arm, title):
    mean = f'{np.mean(values[arm, title]):.1f}'
    if not ranks:
      return mean
    found = statistics.interval(queries(arm, title))
    return f'{mean} ({found.low:.1f}–{found.high:.1f})'

  def difference(one, other, title):
    mean = '{:+.2f} ± {:.2f}'.format(
        *_interval(values[one, title] - values[other, title]))
    if not ranks:
      return mean
    _, p = statistics.paired(queries(one, title), queries(other, title))
    return f'{mean}, p {p:.2g}'

  lines = ['| code-switching | ' + ' | '.join(shown) + ' |',
           '|---|' + '---:|' * len(shown)]
  for arm in ARMS:
    lines.append(f'| {arm} | ' + ' | '.join(
        value(arm, title) for title in shown) + ' |')
  for one, other in _COMPARISONS:
    lines.append(f'| {one} − {other} | ' + ' | '.join(
        difference(one, other, title) for title in shown) + ' |')
  return '\n'.join(lines)


def _interval(differences_S: np.ndarray) -> tuple[float, float]:
  """Returns mean and half-width of Student's 95 % interval; S ≥ 2."""
  n = len(differences_S)
  width = stats.t.ppf(0.975, n - 1) * np.std(differences_S, ddof=1)
  return float(np.mean(differences_S)), float(width / math.sqrt(n))


def _groups(languages: Sequence[str],
            dictionaries: Collection[str]) -> dict[str, list[str]]:
  """Returns the groups of languages that the table shows, by title."""
  others = [name for name in languages if name != 'en']
  covered = [name for name in others if name in dictionaries]
  without = [name for name in others if name not in dictionaries]
  groups = {'en': [name for name in languages if name == 'en'],
            f'{len(others)} others': others,
            f'{len(covered)} with a dictionary': covered,
            f'{len(without)} without': without}
  return {title: names for title, names in groups.items() if names}


def main(options: stages.Options) -> None:
  """Runs the recipe and prints its table."""
  content = run(
      options.workdir, options.data_dir, num_seeds=flags.FLAGS.seeds,
      limit=options.limit, overrides=options.overrides)
  shown = text(content, options.workdir)
  results.write_text(options.workdir / 'ablation.md', shown + '\n')
  if (options.workdir / 'retrieval.json').exists():
    report.write(options.workdir)
  print(shown)


if __name__ == '__main__':
  flags.DEFINE_integer(
      'seeds', 5, 'Number of seeds, 0 … seeds-1; finished ones are kept.',
      lower_bound=2)
  stages.run_recipe(main)
