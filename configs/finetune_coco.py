"""Fine-tuning on MSCOCO (en ja zh) from pre-trained weights, base size.

Needs `coco` (English and Japanese: Karpathy's splits, STAIR's captions beside
them) and `coco_cn` (Chinese: COCO-CN) prepared with region features, and
weights: --config.init_from. Chinese has a test set of its own, see `ALSO`. What
a run of this size gives was not measured here.
"""

import ml_collections

from configs import finetuning

LANGUAGES = ('en', 'ja', 'zh_CN')
# See configs/finetune_multi30k.py; of which COCO protocol, sources don't say.
BESIDE = {
    f'the paper: {setting}': dict(zip(LANGUAGES, recalls, strict=True))
    for setting, recalls in {
        'no_finetune': (63.1, 33.3, 32.3), 'en': (88.6, 53.8, 56.0),
        'each': (88.6, 80.1, 75.8), 'best': (88.7, 87.9, 86.2)}.items()}
# Evaluated beside `config.evaluation`, with these values of it replaced.
ALSO = ({'dataset': 'coco_cn', 'protocol': 'coco-cn-1k',
         'languages': ('zh_CN',)},)


def get_config(setting: str = 'all') -> ml_collections.ConfigDict:
  """Returns the config of one setting, see `configs/finetuning.py`."""
  config = finetuning.get_config(setting, LANGUAGES, batch_size=96)
  chosen = config.data.image_text.languages
  config.data.image_text.datasets = tuple(
      name for name, languages in (('coco', ('en', 'ja')),
                                   ('coco_cn', ('zh_CN',)))
      if set(languages) & set(chosen))
  # About five times through the 113,287 pictures.
  config.num_train_steps = 6_000
  config.optimizer.warmup_steps = 600
  config.evaluation.update(dict(
      protocol='coco-1k', dataset='coco', languages=('en', 'ja'),
      mode='joint'))
  return config
