"""Fine-tuning on Multi30K (en de fr cs) from pre-trained weights, base size.

Needs `multi30k` (training: five captions in en and de, one in fr and cs, as the
paper has them) and `multi30k_task1` (evaluation: one caption in each) prepared
with region features, and weights: --config.init_from. The rates are the
release's; steps and batch are a start, and what a run of this size gives was
not measured here.
Source: reference.md, section 5: 24 anchors a GPU, accumulated over 4 steps.
"""

import ml_collections

from configs import finetuning

LANGUAGES = ('en', 'de', 'fr', 'cs')
# Mean recall of others, shown below the table: the paper's, of protocol
# m3p-pad5. From secondary sources, not checked against its PDF.
BESIDE = {
    f'the paper: {setting}': dict(zip(LANGUAGES, recalls, strict=True))
    for setting, recalls in {
        'no_finetune': (57.9, 36.8, 27.1, 20.4), 'en': (87.4, 58.5, 46.0, 36.8),
        'each': (87.4, 82.1, 67.3, 65.0), 'best': (87.7, 82.7, 73.9, 72.2),
    }.items()}


def get_config(setting: str = 'all') -> ml_collections.ConfigDict:
  """Returns the config of one setting, see `configs/finetuning.py`."""
  config = finetuning.get_config(setting, LANGUAGES, batch_size=96)
  config.data.image_text.datasets = ('multi30k',)
  # About ten times through the 29,000 pictures, whatever the setting.
  config.num_train_steps = 3_000
  config.optimizer.warmup_steps = 300
  config.evaluation.update(dict(
      protocol='multi30k-task1', dataset='multi30k_task1',
      mode='joint'))
  return config
