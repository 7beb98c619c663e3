"""How `weights/photos` was trained: `--config=configs/photos.py:STAGE`.

MODEL_CARD.md has the commands. `names`: pictures against the names of the
classes that the image network sees in them; `all`: the same with captions of
photographs in six languages, emoji and clip-art beside them. The encoder stays
E5's in both: what is learned is where pictures lie among its texts.
"""

import ml_collections

from configs import quickstart

LANGUAGES = ('en', 'de', 'fr', 'cs', 'zh_CN', 'ar')
_STEPS = {'names': 200, 'all': 400}


def get_config(stage: str = 'all') -> ml_collections.ConfigDict:
  """Returns the config of a stage; ValueError for another one."""
  if stage not in _STEPS:
    raise ValueError(f'stage is {stage!r}; allowed: {", ".join(_STEPS)}')
  config = quickstart.get_config('warm_start')
  config.num_train_steps = _STEPS[stage]
  config.setting = 'all' if stage == 'all' else 'no_finetune'
  config.data.languages = config.data.text.languages = LANGUAGES
  data = config.data.image_text
  data.code_switch.rate = 0.0
  data.code_switch.languages = ()
  if stage == 'names':
    data.datasets, data.max_length = ('class_names',), 14
  else:
    config.init_from = 'runs/photos/names'
    data.datasets = ('captions', 'class_names', 'emoji', 'openclipart')
    data.languages, data.max_length = LANGUAGES, 20
  config.evaluation.update(dict(
      dataset='multi30k_task1', protocol='multi30k-task1', split='validation',
      languages=LANGUAGES[:4], max_length=32))
  return config
