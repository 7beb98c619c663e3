"""M3P, small, on Multi30K: the stages of `python -m m3p_jax.recipes.multi30k`.

The quickstart's rates on photographs, which are read as in configs/photos.py.
`names` learns from the names of ImageNet's classes alone; `aligned` from
English captions, half of them switched into the other languages by
dictionaries, with E5 as it is; `pretrain` from the same by all objectives. The
four settings of `configs/finetuning.py` start from there.
"""

import ml_collections

from configs import base
from configs import finetune_multi30k
from configs import finetuning
from configs import photos
from configs import quickstart

LANGUAGES = finetune_multi30k.LANGUAGES
BESIDE = finetune_multi30k.BESIDE
# Stage → the stage of the quickstart whose rates and tasks it has.
STAGES = {'names': 'warm_start', 'aligned': 'warm_start',
          'pretrain': 'pretrain'}
# Of an analysis, since it has nine runs and more: the same learning rates,
# fewer steps and pairs a step. Stage → the one it shortens, its steps.
SHORT = {'ablation_names': ('names', 150), 'ablation_en': ('en', 400)}
_STEPS = {'no_finetune': 400, 'en': 600, 'each': 200, 'all': 700}
# Other test sets that each setting is evaluated on as well.
ALSO = ({'dataset': 'multi30k', 'protocol': 'multi30k-task2x5',
         'languages': ('en', 'de')},
        {'dataset': 'multi30k', 'protocol': 'm3p-pad5'})


def get_config(setting: str = 'all') -> ml_collections.ConfigDict:
  """Returns the config of one of `STAGES`, or of one setting.

  Raises:
    ValueError: an unknown stage, setting or language.
  """
  if setting in SHORT:
    whole, steps = SHORT[setting]
    config = get_config(whole)
    config.num_train_steps = steps
    if whole not in STAGES:
      config.tasks.region_alignment.batch_size = 96
    return config
  config = quickstart.get_config(STAGES.get(setting, 'all'))
  config.data.languages = LANGUAGES
  config.data.text.languages = LANGUAGES
  data = config.data.image_text
  data.max_length = 20
  data.code_switch.languages = LANGUAGES[1:]
  if setting == 'names':
    data.datasets, data.max_length = ('class_names',), 24
    config.num_train_steps = 500
  elif setting == 'aligned':
    data.datasets = ('multi30k',)
    config.num_train_steps = 600
  elif setting == 'pretrain':
    data.datasets = ('multi30k', 'class_names')
    del config.tasks['contrastive']
    config.tasks.update(_dual())
  else:
    chosen = finetuning.get_config(setting, LANGUAGES, batch_size=96)
    data.datasets = ('multi30k',)
    data.languages = chosen.data.image_text.languages
    config.tasks = chosen.tasks
    if 'contrastive' in chosen.tasks:
      # The joint encoder's candidates would double a step's time.
      config.tasks = _dual()
    config.setting = chosen.setting
    config.num_train_steps = _STEPS[chosen.setting]
  if 'class_names' in data.datasets:
    config.eval_batches = 0  # Names are of training pictures alone.
  photos.read_photographs(config)
  config.evaluation.update(dict(
      protocol='multi30k-task1', dataset='multi30k_task1',
      languages=LANGUAGES, max_length=32))
  return config


def _dual() -> dict[str, ml_collections.ConfigDict]:
  """Returns the dual encoder's task, pictures past the encoder's layers.

  These would take a third of a step's time, and the vectors do without.
  """
  return {'region_alignment': base.task_config(
      'region_alignment', 'image_text', 128)}
