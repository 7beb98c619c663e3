"""What does it change? Named variants of a run, several seeds: one table.

python -m m3p_jax.recipes.ablation --name=NAME [--base=multi30k_small]

`make ablation` asks whether code-switching helps: off, on, and with the
translations of each language shuffled among its words. configs/ablations.py
has the other analyses. Each run (variant, seed) is whole, on a short schedule;
the variants of a seed differ in what is named alone. A second call goes on
where this one was.

--config.KEY=VALUE replaces a value in every stage; configs/base.py has the
keys.

Letters: S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
import functools
import math
import sys
import time
from typing import Any

from absl import flags
import ml_collections
import numpy as np
from scipy import stats

from configs import ablations
from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import fingerprint
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
from m3p_jax.recipes import multi30k
from m3p_jax.recipes import quickstart as quickstart_recipe
from m3p_jax.recipes import stages

_FIRST = 'code_switching'


class Ablation:
  """One analysis of one base, in a folder.

  Attributes:
    analysis: what is varied.
  """

  def __init__(self, options: stages.Options, *, name: str = _FIRST,
               base: str = 'quickstart', raw_dir: str = ''):
    """Nothing is read yet.

    Raises:
      UserError: an unknown name, or the seed is set.
    """
    errors.check_choice('--name', name, list(ablations.ANALYSES))
    errors.check_choice('--base', base, list(ablations.BASES))
    if 'seed' in options.overrides:
      raise errors.UserError('--config.seed: the ablation runs seeds 0 … '
                             '--seeds − 1; leave it out')
    self.analysis = ablations.ANALYSES[name]
    self._options, self._base, self._raw_dir = options, base, raw_dir
    # The first analysis is the report's.
    self.stem = 'ablation' if name == _FIRST else f'ablation_{name}'
    self._folder = options.workdir / self.stem

  def result(self, variant: str, seed: int) -> paths.Path:
    """Returns the file of a run's result."""
    return self._folder / variant.replace(' ', '_') / f'{seed}.json'

  def configs(self, variant: str, seed: int,
              ) -> dict[str, ml_collections.ConfigDict]:
    """Returns the configs of a run's stages, ready to run."""
    configs: dict[str, ml_collections.ConfigDict] = {}
    before = None
    for stage in self.analysis.stages_of(variant):
      config = ablations.get_config(
          self._base, stage, self.analysis.variants[variant], seed)
      config.update_from_flattened_dict(dict(self._options.overrides))
      config.data.data_dir = str(self._options.data_dir)
      config.init_from = str(before / 'checkpoints') if before else 'e5'
      configs[stage] = config
      before = self.workdir(variant, seed, configs)
    return configs

  def workdir(self, variant: str, seed: int, configs: Mapping[
      str, ml_collections.ConfigDict]) -> paths.Path:
    """Returns the folder of the last of a run's stages so far.

    A stage that is not a run's last is the same for all variants of a seed that
    have the same configs up to it: it is trained once.
    """
    stage = list(configs)[-1]
    if stage == self.analysis.stages[-1]:
      return self.result(variant, seed).with_suffix('') / stage
    key = fingerprint.of([stages.settings_of(config_lib.to_json(config))
                          for config in configs.values()])
    return self._folder / 'stages' / str(seed) / f'{stage}-{key}'

  def run(self, num_seeds: int) -> dict[str, Any]:
    """Returns the content of `ablation.json`, every run done."""
    runs = [(variant, seed) for seed in range(num_seeds)
            for variant in self.analysis.variants]
    data = (list(quickstart_recipe.DATA_STAGES) if self._base == 'quickstart'
            else list(multi30k.DATA_STAGES))
    recipe = stages.Stages(self._folder, len(data) + len(runs))
    self._prepare(recipe)
    content: dict[str, Any] = {'cells': {}}
    content['schedule'] = _schedule(self.configs(*runs[0]))
    print(f'{len(runs)} runs, each: {content["schedule"]}', file=sys.stderr)
    for number, (variant, seed) in enumerate(runs):
      configs = self.configs(variant, seed)
      path = self.result(variant, seed)
      evaluation = list(configs.values())[-1].evaluation
      recipe.run(
          f'ablation_{variant}_{seed}',
          functools.partial(self._train_and_evaluate, variant, seed, configs),
          title=f'seed {seed}, {variant}',
          settings=[*(stages.settings_of(config_lib.to_json(config))
                      for config in configs.values()),
                    config_lib.to_json(evaluation)],
          after=data, output=path, resumes=True)
      found = results.read(path)
      content['cells'].setdefault(variant, {})[str(seed)] = found
      results.write(self._options.workdir / f'{self.stem}.json', content)
      if not number:
        print(f'{len(runs) - 1} runs like this one take '
              f'{(len(runs) - 1) * found["seconds"] / 60:.0f} minutes at most',
              file=sys.stderr)
      if variant == runs[-1][0] and sharding.is_first():
        # Checkpoints are half a gigabyte each, and a seed's are done with.
        paths.remove_tree(self._folder / 'stages' / str(seed))
    return content

  def _train_and_evaluate(self, variant: str, seed: int, configs: Mapping[
      str, ml_collections.ConfigDict]) -> None:
    """Trains, evaluates and writes one run; goes on from what is there."""
    start = time.monotonic()
    before: dict[str, ml_collections.ConfigDict] = {}
    for stage, config in configs.items():
      before[stage] = config
      folder = self.workdir(variant, seed, before)
      train.train_and_evaluate(config, folder)
    weights = weights_lib.load(folder)
    c = config.evaluation
    weights_lib.check_data(weights, config.data.data_dir, c.dataset)
    retrieval_set = evaluation_set.load(
        config.data.data_dir, c.dataset, c.split, c.languages, c.max_length,
        text_room=weights.config.text_room)
    outcome = scoring.run(scoring.make_scorer(
        weights, retrieval_set, c.languages, c), mode='dual')
    if not sharding.is_first():
      return
    result = self.result(variant, seed)
    results.update_ranks(result, config.setting, outcome.queries)
    results.write(result, {
        'seconds': time.monotonic() - start, 'run': provenance.collect(),
        'mean_recall': {name: language['mean_recall']
                        for name, language in outcome.languages.items()}})
    paths.remove_tree(folder.parent)

  def _prepare(self, recipe: stages.Stages) -> None:
    if self._base == 'quickstart':
      quickstart_recipe.run_data(
          recipe, self._options.data_dir, limit=self._options.limit)
    else:
      multi30k.run_data(recipe, self._options, self._raw_dir,
                        targets=self.targets())

  def targets(self) -> list[str]:
    """Returns the languages that any variant switches words into."""
    return sorted({
        language for variant in self.analysis.variants
        for config in self.configs(variant, 0).values()
        for language in config.data.image_text.code_switch.languages})

  def text(self, content: Mapping[str, Any]) -> str:
    """Returns the table with what it shows, the schedule and the machine."""
    configs = self.configs(next(iter(self.analysis.variants)), 0)
    last = list(configs.values())[-1]
    cells = content['cells']
    first = next(iter(next(iter(cells.values())).values()))
    where, ranks = first['run'], self._ranks(content, last.setting)
    return '\n'.join([
        f'# {self.analysis.title}', '',
        f'Mean recall on {last.evaluation.dataset} ({last.evaluation.split}), '
        f'setting {last.setting}, dual encoder, '
        f'{len(next(iter(cells.values())))} seeds. Differences are paired by '
        'seed; ± is the half-width of Student\'s 95 % interval over seeds.' + (
            ' In brackets: 95 % bootstrap interval over pictures; p: '
            'permutation test over pictures, seeds together.'
            if ranks else ''), '',
        table(cells, last.data.image_text.code_switch.languages,
              beside=self.analysis.beside, ranks=ranks), '',
        f'Shortened schedule of a run: {content["schedule"]}; '
        f'{first["seconds"] / 60:.0f} minutes. {where["machine"]}, commit '
        f'{where["commit"]}, {where["date"]}.'])

  def _ranks(self, content: Mapping[str, Any], setting: str):
    """Returns {variant: {seed: ranks}}; None where a run is without them."""
    found = {variant: {seed: results.load_ranks(
        self.result(variant, int(seed)), setting) for seed in runs}
             for variant, runs in content['cells'].items()}
    is_whole = all(one for runs in found.values() for one in runs.values())
    return found if is_whole else None


def _schedule(configs: Mapping[str, ml_collections.ConfigDict]) -> str:
  """Returns a run's shortened schedule in words."""
  parts = []
  for stage, config in configs.items():
    tasks = ', '.join(f'{name} {task.batch_size}'
                      for name, task in config.tasks.items())
    parts.append(f'{stage} {config.num_train_steps} steps (rows a step: '
                 f'{tasks})')
  return '; '.join(parts)


def table(runs: Mapping[str, Mapping[str, Any]],
          dictionaries: Collection[str], *,
          beside: Mapping[str, str] | None = None,
          ranks: Mapping[str, Mapping[str, Mapping[str, statistics.Language]]]
          | None = None) -> str:
  """Returns the table: variants, then paired differences with intervals.

  Args:
    runs: by variant and seed (a string), each with `mean_recall` by language;
      two seeds or more, the same of every variant.
    dictionaries: languages that captions were switched into.
    beside: see `ablations.Analysis`.
    ranks: {variant: {seed: {language: queries}}}, of the same runs; adds each
      variant's bootstrap interval over pictures, and the p of the paired test
      over pictures, all seeds together. None = without.
  """
  variants = list(runs)
  seeds = sorted(runs[variants[0]])
  shown = _groups(
      list(runs[variants[0]][seeds[0]]['mean_recall']), dictionaries)
  values = {
      (variant, title): np.array([
          np.mean([runs[variant][seed]['mean_recall'][name] for name in names])
          for seed in seeds])
      for variant in variants for title, names in shown.items()}

  def queries(variant, title):
    return [ranks[variant][seed][name]
            for seed in seeds for name in shown[title]]

  def value(variant, title):
    mean = f'{np.mean(values[variant, title]):.1f}'
    if not ranks:
      return mean
    found = statistics.interval(queries(variant, title))
    return f'{mean} ({found.low:.1f}–{found.high:.1f})'

  def difference(one, other, title):
    mean = '{:+.2f} ± {:.2f}'.format(
        *_interval(values[one, title] - values[other, title]))
    if not ranks:
      return mean
    _, p = statistics.paired(queries(one, title), queries(other, title))
    return f'{mean}, p {p:.2g}'

  lines = ['| | ' + ' | '.join(shown) + ' |', '|---|' + '---:|' * len(shown)]
  for variant in variants:
    lines.append(f'| {variant} | ' + ' | '.join(
        value(variant, title) for title in shown) + ' |')
  pairs = [(name, variants[0]) for name in variants[1:]]
  for one, other in [*pairs, *(beside or {}).items()]:
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
  values = flags.FLAGS
  ablation = Ablation(options, name=values.name, base=values.base,
                      raw_dir=values.raw_dir)
  shown = ablation.text(ablation.run(values.seeds))
  results.write_text(options.workdir / f'{ablation.stem}.md', shown + '\n')
  if (options.workdir / 'retrieval.json').exists():
    report.write(options.workdir)
  print(shown)


if __name__ == '__main__':
  flags.DEFINE_integer(
      'seeds', 5, 'Number of seeds, 0 … seeds-1; finished ones are kept.',
      lower_bound=2)
  flags.DEFINE_enum('name', _FIRST, list(ablations.ANALYSES), 'The analysis.')
  flags.DEFINE_enum('base', 'quickstart', list(ablations.BASES),
                    'Whose data and stages.')
  flags.DEFINE_string('raw_dir', '', 'For --base=multi30k_small, as in '
                      'recipes.multi30k.')
  stages.run_recipe(main)
