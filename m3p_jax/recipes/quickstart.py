"""The whole of M3P, small, on real data: `make quickstart`, `make rerank`.

Data → pre-training → fine-tuning in English (`en`) and in 13 languages
(`all`) → retrieval in 25 languages by the dual encoder → re-ranking by the
joint encoder → report. Everything is chosen on the validation split. A second
run skips what is done and goes on with what was cut off.

--config.KEY=VALUE replaces a value in every stage; configs/base.py has the
keys, configs/quickstart.py the values.
"""

from collections.abc import Mapping
import os
import pathlib
import shutil
from typing import Any

from absl import flags

from configs import quickstart
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.recipes import command
from m3p_jax.recipes import data
from m3p_jax.recipes import reranking
from m3p_jax.recipes import stages

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


class Quickstart:
  """The stages of one run, in their order."""

  def __init__(self, workdir: pathlib.Path, data_dir: pathlib.Path, *,
               overrides: Mapping[str, Any], limit: int = 0):
    """Args: `overrides` are config values by dotted key; `limit` pictures."""
    self.workdir, self.data_dir = workdir, data_dir
    self._overrides, self._limit = dict(overrides), limit

  def run(self, *, rerank_all: bool = False) -> None:
    """Runs every stage that is not done.

    Args:
      rerank_all: re-rank every setting, not only the final one.
    """
    reranked = list(SETTINGS) if rerank_all else [FINAL]
    total = len(data.STAGES) + len(TRAINING) + 2 * len(reranked) + 2
    self._stages = stages.Stages(self.workdir, total)
    data.run(self._stages, self.data_dir, limit=self._limit)
    for name, (before, title) in TRAINING.items():
      stages.run_training(
          self._stages, name, self.config(name), self.workdir / name,
          title=title, after=[before] if before else data.STAGES)
    self._run('evaluate', self._evaluate, after=list(SETTINGS.values()),
              title='search the test pictures in '
                    f'{len(self.config(FINAL).evaluation.languages)} '
                    'languages, dual encoder',
              output=self.workdir / 'retrieval.json')
    for setting in sorted(reranked, key=lambda name: name != FINAL):
      self._rerank(setting)
    self._stages.run('finish', self._finish, title='report', always=True)

  def config(self, stage: str):
    """Returns the config of a training stage, ready to run."""
    config = quickstart.get_config(stage)
    config.update_from_flattened_dict(self._overrides)
    config.data.data_dir = str(self.data_dir)
    before = TRAINING[stage][0]
    if before:
      config.init_from = str(self.workdir / before / 'checkpoints')
    return config

  def evaluation_config(self, setting: str):
    """Returns the config that evaluates a setting's weights."""
    stage = SETTINGS[setting]
    config = self.config(stage)
    config.init_from = str(self.workdir / stage / 'checkpoints')
    config.setting = setting
    return config

  def _run(self, name, work, *, title, after, output, **settings) -> None:
    evaluation = self.evaluation_config(FINAL).evaluation.to_dict()
    self._stages.run(name, work, title=title, after=after, output=output,
                     settings=settings | {'evaluation': evaluation})

  def _evaluate(self) -> None:
    for setting in SETTINGS:
      retrieval.evaluate(self.evaluation_config(setting), self.workdir)

  def _rerank(self, setting: str) -> None:
    config = self.evaluation_config(setting)
    path = self.workdir / reranking.choice_name(setting, final=FINAL)
    self._run(f'choose_{setting}',
              lambda: reranking.choose(config, path),
              title=f'{setting}: choose how to re-rank, on validation',
              after=['evaluate'], output=path)

    def rerank():
      config.evaluation.update(reranking.read_choice(path))
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


def link_newest(source: pathlib.Path, target: pathlib.Path) -> None:
  """Puts the newest checkpoint of `source` into `target`, alone.

  Hard links where the file system has them: no byte is stored twice.
  """
  newest = max((path for path in source.iterdir() if path.name.isdecimal()),
               key=lambda path: int(path.name))
  draft = target.with_name(f'.{target.name}.draft')
  if draft.exists():
    shutil.rmtree(draft)

  def link(old: str, new: str) -> None:
    try:
      os.link(old, new)
    except OSError:  # Another file system, or one without hard links.
      shutil.copy2(old, new)

  shutil.copytree(newest, draft / newest.name, copy_function=link)
  if target.exists():
    shutil.rmtree(target)
  draft.rename(target)


def main(options: command.Options) -> None:
  """Runs the recipe and prints its tables."""
  Quickstart(
      options.workdir, options.data_dir, limit=options.limit,
      overrides=options.overrides).run(rerank_all=flags.FLAGS.rerank_all)
  print(reranking.summary(options.workdir))


if __name__ == '__main__':
  flags.DEFINE_bool('rerank_all', False, 'Re-rank the settings no_finetune and '
                    'en as well.')
  command.run(main)
