"""How `weights/photos` was trained: `--config=configs/photos.py:STAGE`.

MODEL_CARD.md has the commands. `names`: pictures against the names of the
classes that the image network sees in them, in half of them half of the words
switched into the other languages; `aligned`: against captions of photographs in
six languages as well, emoji and clip-art beside them; in both the encoder stays
E5's, and what is learned is where pictures lie among its texts. `switched`: the
encoder too, on photographs alone, half of the English captions with words of
other languages. `longer`: the same, more rows a step. `joint`, which
`weights/photos` do without: the joint encoder on top of the dual one's scores.
"""

import ml_collections

from configs import base
from configs import quickstart

LANGUAGES = ('en', 'de', 'fr', 'cs', 'zh_CN', 'ar')
# Stage → steps, and the stage that it starts from.
_STAGES = {'names': (500, ''), 'aligned': (600, 'names'),
           'switched': (700, 'aligned'), 'longer': (360, 'switched'),
           'joint': (500, 'longer')}


def read_photographs(config: ml_collections.ConfigDict) -> None:
  """Sets how regions of `prepare --features=grid-lite2` are read.

  Mean recall on 242 photographs, with the text vectors held fixed: dropping
  numbers of the features found 5 more with Lite0 and 3 with Lite2, the larger
  network 2, and a layer over the regions 2, which without the dropping found
  nothing (docs/results.md).
  """
  config.model.refiner_layers = 1
  config.model.region_dropout = 0.4
  if 'region_alignment' in config.tasks:
    # The layer's weights begin small beside a step of the others.
    config.optimizer.rate_factors = (
        (r'^refiner/', 0.2), *config.optimizer.rate_factors)


def get_config(stage: str = 'longer') -> ml_collections.ConfigDict:
  """Returns the config of a stage; ValueError for another one."""
  if stage not in _STAGES:
    raise ValueError(f'stage is {stage!r}; allowed: {", ".join(_STAGES)}')
  config = quickstart.get_config('warm_start')
  is_whole = stage in ('switched', 'longer', 'joint')
  if is_whole:
    config.optimizer.update(quickstart.get_config('all').optimizer)
  config.num_train_steps, before = _STAGES[stage]
  if before:
    config.init_from = f'runs/photos/{before}'
  config.setting = 'no_finetune' if stage == 'names' else 'all'
  config.data.languages = config.data.text.languages = LANGUAGES
  data = config.data.image_text
  data.code_switch.rate, data.code_switch.languages = 0.0, ()
  if stage == 'names':
    # Four names, some of them in other languages.
    data.datasets, data.max_length = ('class_names',), 24
    data.code_switch.update(dict(rate=0.5, languages=LANGUAGES[1:]))
  else:
    data.datasets = ('captions', 'class_names', 'emoji', 'openclipart')
    data.languages, data.max_length = LANGUAGES, 20
  if stage == 'longer':
    config.tasks.region_alignment.batch_size = 192
  if stage == 'joint':
    # What it meets in re-ranking: the hardest of many, and their dual score.
    config.tasks.region_alignment.batch_size = 96
    config.tasks.retrieval = base.task_config(
        'retrieval', 'image_text', 128, num_anchors=16, num_candidates=4,
        negatives='hard', binary_weight=0.0, softmax_weight=1.0,
        add_dual_score=True)
  if is_whole:
    data.datasets = ('captions',)
    data.code_switch.update(dict(rate=0.5, languages=LANGUAGES[1:]))
  if 'class_names' in data.datasets:
    config.eval_batches = 0  # Names are of training pictures alone.
  read_photographs(config)
  if stage == 'names':
    # So it was; 0.4 found 0.4 more in the recipe for Multi30K.
    config.model.region_dropout = 0.2
  config.evaluation.update(dict(
      dataset='multi30k_task1', protocol='multi30k-task1', split='validation',
      languages=LANGUAGES[:4], max_length=32))
  return config
