"""Classification from trained weights: XVNLI, or another set by name.

configs/classification.py, or configs/classification.py:TASK, where TASK is
xvnli, xgqa, marvl (trained on NLVR2's English) or caption_fit (any captioned
photographs). Weights bring their geometry: `--config.init_from=CHECKPOINT`.
Steps and rates are a start: they were not tried on the sets themselves.
"""

import ml_collections

from configs import base
from configs import quickstart
from input_pipeline import errors

# Labels, rows' kind, protocol and languages of each.
TASKS = {
    'xvnli': (3, 'labelled', 'xvnli', ('ar', 'en', 'es', 'fr', 'ru')),
    'xgqa': (1_842, 'labelled', 'xgqa',
             ('bn', 'de', 'en', 'id', 'ko', 'pt', 'ru', 'zh_CN')),
    'marvl': (2, 'pair', 'marvl', ('en', 'id', 'sw', 'ta', 'tr', 'zh_CN')),
    'caption_fit': (2, 'labelled', 'labels', ('en',))}


def get_config(task: str = 'xvnli') -> ml_collections.ConfigDict:
  """Returns the config of a task."""
  errors.check_choice('configs/classification.py:TASK', task, TASKS)
  num_labels, stream, protocol, known = TASKS[task]
  config = base.get_config()
  config.data.languages = known
  config.data.text.languages = config.data.image_text.languages = ('en',)
  config.data.image_text.max_length = 80
  config.tasks = {task: base.task_config(
      'classification', stream, 128, num_labels=num_labels,
      data=dict(datasets=(task,)))}
  config.num_train_steps = 40_000
  config.optimizer.update(dict(
      learning_rate=4e-5, warmup_steps=4_000, weight_decay=1e-4))
  config.eval_every_steps = config.checkpoint_every_steps = 1_000
  if task == 'caption_fit':
    # Small weights on a laptop: IGLUE's steps would take it weeks.
    config.tasks[task].batch_size = 32
    config.data.image_text.max_length = 32
    config.num_train_steps = 600
    config.optimizer = quickstart.get_config('all').optimizer
    config.eval_every_steps = config.checkpoint_every_steps = 200
  config.best_metric = f'{task}/accuracy'
  config.evaluation.update(dict(
      protocol=protocol, dataset=task, split='test', languages=('all',)))
  return config
