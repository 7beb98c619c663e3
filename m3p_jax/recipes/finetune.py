"""The paper's four settings with one command: fine-tune, evaluate, table.

python -m m3p_jax.recipes.finetune --name=tux_paint
    --init_from=runs/quickstart/pretrain --workdir=runs/tux_paint

`no_finetune` evaluates the weights as they are; `en`, `each` and `all` are
fine-tuned on English, on each language by itself and on all of them. Settings
that are done are skipped, what was cut off goes on.

--config.KEY=VALUE replaces a value in every run: --config.data.image_text.
shots=20 trains on 20 pictures a language. configs/finetune_NAME.py has the
values. --reference takes the recipe of the release.
"""

from collections.abc import Mapping, Sequence
import functools
import importlib
import pkgutil
from typing import Any

from absl import flags
import ml_collections

import configs
from configs import finetuning
from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import paths
from input_pipeline import prepare
from input_pipeline import streams
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import statistics
from m3p_jax.recipes import stages

_PREFIX = 'finetune_'
# More languages are shown in groups.
_MOST_COLUMNS = 6


def names() -> list[str]:
  """Returns the NAMEs of configs/finetune_NAME.py."""
  return sorted(file.name.removeprefix(_PREFIX)
                for file in pkgutil.iter_modules(configs.__path__)
                if file.name.startswith(_PREFIX))


class Finetune:
  """The runs of one config, in the order of the settings."""

  def __init__(self, name: str, workdir: paths.Path,
               data_dir: paths.Path, *, init_from: str,
               overrides: Mapping[str, Any], is_reference: bool = False):
    """Names the runs of configs/finetune_NAME.py; nothing is read.

    Raises:
      UserError: an unknown name, or no weights.
    """
    errors.check_choice('--name', name, names())
    if not init_from:
      raise errors.UserError(
          '--init_from=DIR is missing: the pre-trained weights, a checkpoint '
          'or a workdir')
    self._module = importlib.import_module(f'configs.{_PREFIX}{name}')
    self.workdir, self._data_dir = workdir, data_dir
    self._init_from, self._overrides = init_from, dict(overrides)
    self._recipe = 'reference' if is_reference else ''

  def run(self, settings: Sequence[str]) -> None:
    """Trains and evaluates the settings, those that are done excepted."""
    runs = [(setting, language) for setting in settings for language in (
        self._module.LANGUAGES if setting == 'each' else ('',))]
    recipe = stages.Stages(self.workdir, sum(
        (setting != 'no_finetune') + len(self.evaluations(setting, language))
        for setting, language in runs))
    for setting, language in runs:
      self._run(recipe, setting, language)
    report.write(self.workdir)

  def config(self, setting: str, language: str) -> ml_collections.ConfigDict:
    """Returns the config of one run; `language` of `each`, else ''."""
    config = self._module.get_config(
        ','.join(filter(None, (setting, language, self._recipe))))
    config.update_from_flattened_dict(self._overrides)
    config.data.data_dir = str(self._data_dir)
    config.init_from = _checkpoints(self._init_from)
    return config

  def evaluations(self, setting: str,
                  language: str) -> list[ml_collections.ConfigDict]:
    """Returns the configs of a run's evaluations, one a test set."""
    found = []
    for changes in ({}, *getattr(self._module, 'ALSO', ())):
      config = self.config(setting, language)
      config.evaluation.update(changes)
      if language:
        # One setting of several runs: each language was in one of them.
        config.data.image_text.languages = tuple(self._module.LANGUAGES)
        asked = tuple(config.evaluation.languages)
        if language not in asked and asked != (languages_lib.ALL,):
          continue
        config.evaluation.languages = (language,)
      if setting != 'no_finetune':
        config.init_from = str(
            self.workdir / setting / language / 'checkpoints')
      found.append(config)
    return found

  def _run(self, recipe: stages.Stages, setting: str, language: str) -> None:
    config = self.config(setting, language)
    name = '_'.join(filter(None, (setting, language)))
    # Other weights may have come to the same place.
    before = stages.newest_weights(self._init_from)
    if setting != 'no_finetune':
      stages.run_training(
          recipe, name, config, self.workdir / setting / language, after=(),
          inputs=[before, self._data(config)],
          title=f'{name}: fine-tune on '
          f'{", ".join(config.data.image_text.languages)}')
    for evaluated in self.evaluations(setting, language):
      c = evaluated.evaluation
      is_main = ((c.dataset, c.protocol) == (
          config.evaluation.dataset, config.evaluation.protocol))
      recipe.run(
          f'evaluate_{name}' + (
              '' if is_main else f'_{c.dataset}_{c.protocol}'),
          functools.partial(retrieval.evaluate, evaluated, self.workdir),
          title=f'{name}: evaluate on {c.dataset}',
          output=self._results(evaluated),
          settings=[self._init_from, c.to_dict()],
          inputs=[before, prepare.read_key(
              paths.of(c.data_dir or self._data_dir) / c.dataset)],
          after=[] if setting == 'no_finetune' else [name])

  def _data(self, config: ml_collections.ConfigDict) -> list[Any]:
    """Returns what the sets that a run reads were made from."""
    return [prepare.read_key(self._data_dir / dataset)
            for task in config.tasks.values()
            for dataset in streams.data_of(config.data, task).datasets]

  def _results(self, config: ml_collections.ConfigDict) -> paths.Path:
    """Returns the file that an evaluation goes to."""
    c = config.evaluation
    return results.path_for(
        self.workdir, {key: c[key] for key in results.HEADER}, c.mode)

  def table(self) -> str:
    """Returns mean recall with intervals in Markdown, and what was tried."""
    parts = []
    for config in self.evaluations('no_finetune', ''):
      path = self._results(config)
      content = results.read(path)
      # Languages that fit have a column each, as in the papers.
      groups = results.language_groups(content)
      names = [name for group in groups.values() for name in group]
      if len(names) <= _MOST_COLUMNS:
        groups = {name: [name] for name in names}
      parts.append(
          f'{content["dataset"]} ({content["split"]}), protocol '
          f'{content["protocol"]}, {content["mode"]}:\n\n' + table(
              path, groups, list(content['settings']),
              beside=getattr(self._module, 'BESIDE', {})))
    return '\n\n'.join(parts)


def _checkpoints(path: str) -> str:
  """Returns the `checkpoints/` of a workdir; anything else as it is."""
  inside = paths.of(path) / 'checkpoints'
  return str(inside) if inside.is_dir() else path


def table(path: paths.Path, groups: Mapping[str, Sequence[str]],
          settings: Sequence[str], *,
          beside: Mapping[str, Mapping[str, float]] | None = None) -> str:
  """Returns settings × groups of languages, with 95 % intervals, in Markdown.

  `beside` is {title: {language: mean recall}} of others, below the table.
  """
  titles = [names[0] if len(names) == 1 else f'{len(names)} {title}'
            for title, names in groups.items()]
  content = results.read(path)
  rows = {}
  for setting in settings:
    queries, rows[setting] = results.load_ranks(path, setting), []
    for languages in groups.values():
      if all(name in queries for name in languages):
        found = statistics.interval([queries[name] for name in languages])
        rows[setting].append(
            f'{found.value:.1f} ({found.low:.1f}–{found.high:.1f})')
      else:
        rows[setting].append('–')
  largest = max(content['settings'].values(),
                key=lambda one: len(one['languages']))
  rows['chance'] = [_number(results.mean(largest, names, 'chance'))
                    for names in groups.values()]
  text = _markdown('setting', titles, rows)
  if beside:
    languages = list(dict.fromkeys(
        name for row in beside.values() for name in row))
    recalls = dict(beside)
    for setting in settings:
      recalls[setting] = {
          name: found['mean_recall'] for name, found
          in content['settings'][setting]['languages'].items()}
    text += '\n\n' + _markdown('', languages, {
        title: [_number(row.get(name)) for name in languages]
        for title, row in recalls.items()})
  return text


def _markdown(corner: str, titles: Sequence[str],
              rows: Mapping[str, Sequence[str]]) -> str:
  lines = ['| ' + ' | '.join((name, *row)) + ' |'
           for name, row in {corner: titles, **rows}.items()]
  lines.insert(1, '|---|' + '---:|' * len(titles))
  return '\n'.join(lines)


def _number(value: float | None) -> str:
  return '–' if value is None else f'{value:.1f}'


def main(options: stages.Options) -> None:
  """Runs the recipe and prints its table."""
  values = flags.FLAGS
  for setting in values.settings:
    errors.check_choice('--settings', setting, finetuning.SETTINGS)
  recipe = Finetune(values.name, options.workdir, options.data_dir,
                    init_from=values.init_from, overrides=options.overrides,
                    is_reference=values.reference)
  recipe.run(values.settings)
  print('\nMean recall in per cent, with 95 % bootstrap intervals over '
        f'pictures:\n\n{recipe.table()}')


if __name__ == '__main__':
  flags.DEFINE_string('name', 'tux_paint', 'Of configs/finetune_NAME.py.')
  flags.DEFINE_string(
      'init_from', '', 'Pre-trained weights: a checkpoint or a workdir.')
  flags.DEFINE_bool(
      'reference', False, 'The recipe of the release: four candidates in each '
      'direction, random negatives, binary cross-entropy.')
  flags.DEFINE_list('settings', list(finetuning.SETTINGS), 'Which, in order.')
  stages.run_recipe(main, workdir='runs/finetune')
