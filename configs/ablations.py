"""What the analyses vary: named variants of a run, as values by dotted key.

`python -m m3p_jax.recipes.ablation --name=NAME`; `make ablation` is
`code_switching`. A variant changes every stage of a run in which the key is;
how words are switched, every stage that switches some. A task that is None is
left out, and `SEED` stands for the run's seed. Of each variant the difference
to the first is shown, and to what `beside` names.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import ml_collections

from configs import finetune_multi30k_small
from configs import quickstart

SEED = 'the seed of the run'
_SWITCH = 'data.image_text.code_switch.'
_OFF = {f'{_SWITCH}rate': 0.0}
_EVERY = {f'{_SWITCH}sentence_rate': 1.0}
_HALF = {f'{_SWITCH}sentence_rate': 0.5}
# What is trained one after the other, on a schedule short enough for seeds;
# 'pretrain' where objectives are compared.
_BASES = {
    'quickstart': ({'names': 'ablation_warm_start', 'pretrain': 'pretrain',
                    'en': 'ablation_en'}, quickstart.get_config),
    'multi30k_small': ({'names': 'ablation_names', 'pretrain': 'pretrain',
                        'en': 'ablation_en'},
                       finetune_multi30k_small.get_config)}
BASES = tuple(_BASES)


@dataclasses.dataclass(frozen=True)
class Analysis:
  """Variants of one run.

  Attributes:
    title: the question.
    variants: name → values by dotted key.
    stages: of a run, in their order.
    beside: variant → another one that it is compared with as well.
    skipped: variant → stage that it leaves out.
  """
  title: str
  variants: Mapping[str, Mapping[str, Any]]
  stages: Sequence[str] = ('names', 'en')
  beside: Mapping[str, str] = dataclasses.field(default_factory=dict)
  skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def stages_of(self, variant: str) -> list[str]:
    """Returns what a variant trains, one after the other."""
    return [stage for stage in self.stages
            if self.skipped.get(variant) != stage]


def _without(task: str) -> dict[str, None]:
  return {f'tasks.{task}': None}


ANALYSES = {
    'code_switching': Analysis(
        'Does code-switching help?',
        {'off': _OFF, 'on': {}, 'shuffled': {f'{_SWITCH}shuffle_seed': SEED}},
        beside={'on': 'shuffled'}),
    'rules': Analysis(
        'Which captions and words are switched?',
        {'off': _OFF, 'every caption': _EVERY,
         'half of the captions': _HALF,
         'a language a word': {**_HALF, f'{_SWITCH}language_per': 'word'},
         'one word a caption': {**_EVERY, f'{_SWITCH}mode': 'one'},
         "the release's": {**_EVERY, f'{_SWITCH}rule': 'release'}},
        beside={'a language a word': 'half of the captions'}),
    'rates': Analysis(
        'How many words are switched?',
        {'off': _OFF, **{f'rate {rate}': {f'{_SWITCH}rate': rate}
                         for rate in (0.25, 0.5, 0.8)}}),
    'languages': Analysis(
        'Into how many languages?',
        {'off': _OFF, '1': {f'{_SWITCH}languages': ('de',)},
         '3': {f'{_SWITCH}languages': ('de', 'fr', 'cs')},
         '10': {f'{_SWITCH}languages': quickstart.DICTIONARIES[:10]},
         'all': {f'{_SWITCH}languages': quickstart.DICTIONARIES}}),
    'objectives': Analysis(
        'What does each pre-training objective give?',
        {'all': {}, **{f'without {name}': _without(task) for name, task in (
            ('xMLM', 'xmlm'), ('MC-MLM', 'mc_mlm'), ('MC-MRM', 'mc_mrm'),
            ('MC-VLM', 'mc_vlm'))}, 'without the warm start': {}},
        stages=('names', 'pretrain', 'en'),
        skipped={'without the warm start': 'names'}),
}


def get_config(base: str, stage: str, values: Mapping[str, Any],
               seed: int) -> ml_collections.ConfigDict:
  """Returns the config of one stage of a variant with a seed."""
  stages, get = _BASES[base]
  config = get(stages[stage])
  config.seed = seed
  switches = config.data.image_text.code_switch.rate > 0
  for key, value in values.items():
    section, _, name = key.rpartition('.')
    if value is None:
      if name in config[section]:
        del config[section][name]
    elif switches or not key.startswith(_SWITCH):
      config.update_from_flattened_dict({key: seed if value is SEED else value})
  # One checkpoint, at the stage's end, is enough to go on from.
  config.checkpoint_every_steps = config.num_train_steps
  config.keep_checkpoints = 1
  config.eval_batches = 0
  return config
