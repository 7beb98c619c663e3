"""The whole of M3P, small, on real data: the stages of `make quickstart`.

`--config=configs/quickstart.py:STAGE` with STAGE one of `warm_start`,
`pretrain`, `en`, `all`. Everything was chosen on validation splits.
"""

import ml_collections

from configs import base

SUPERVISED = ('en', 'de', 'fr', 'es', 'cs', 'ru', 'ja', 'zh_CN', 'ar', 'hi',
              'tr', 'hu', 'fi')
# Never seen in a caption: zero-shot.
HELD_OUT = ('it', 'ko', 'vi', 'th', 'pl', 'uk', 'sv', 'he', 'el', 'ka', 'am',
            'zu')
LANGUAGES = SUPERVISED + HELD_OUT
# Languages with a FreeDict dictionary of useful coverage.
DICTIONARIES = ('de', 'fr', 'es', 'cs', 'ru', 'hi', 'ar', 'ja', 'fi', 'tr',
                'hu')
STAGES = ('warm_start', 'pretrain', 'en', 'all')

# The 250,002-row word table stays as it is: minutes of training cannot move
# words that the captions never show, and its moments would fill the memory.
FROZEN_WORDS = (r'^tokens/', 0.0)


def _model(config: ml_collections.ConfigDict) -> None:
  """Sets the geometry of multilingual-E5-small and EfficientNet-Lite0."""
  config.model.update(dict(
      width=384, num_heads=12, mlp_width=1536, num_layers=12,
      max_positions=512, region_feature_dim=1280, num_region_classes=1001,
      num_languages=1, embedding_dim=384, dropout=0.1,
      attention_dropout=0.0))


def _data(config: ml_collections.ConfigDict) -> None:
  data = config.data
  data.languages = LANGUAGES
  data.text.datasets = ('udhr',)
  data.text.languages = LANGUAGES
  data.text.max_length = 32
  data.image_text.datasets = ('emoji', 'openclipart')
  data.image_text.languages = ('en',)
  data.image_text.max_length = 16
  switch = data.image_text.code_switch
  switch.rate = 0.5
  switch.languages = DICTIONARIES
  config.evaluation.mode = 'dual'
  config.evaluation.languages = LANGUAGES
  config.evaluation.max_length = 24


def _warm_start(config: ml_collections.ConfigDict) -> None:
  """The region embedding and the projections learn; the rest is frozen."""
  config.init_from = 'e5'
  config.num_train_steps = 150
  config.tasks = dict(
      contrastive=base.task_config('contrastive', 'image_text', 128))
  config.optimizer.learning_rate = 2e-3
  config.optimizer.rate_factors = (
      (r'^region_embedding/', 1.0), (r'_projection/', 0.5),
      (r'^log_scale$', 0.5), (r'', 0.0))


def _pretrain(config: ml_collections.ConfigDict) -> None:
  config.num_train_steps = 250
  config.tasks = dict(
      xmlm=base.task_config('masked_lm', 'text', 8, weight=0.1),
      mc_mlm=base.task_config('masked_lm', 'image_text', 16, weight=0.1),
      mc_mrm=base.task_config('masked_region', 'image_text', 16, weight=0.1),
      mc_vlm=base.task_config('matching', 'image_text', 16, weight=1.0,
                              negatives='hard'),
      contrastive=base.task_config('contrastive', 'image_text', 64))
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rate_factors = (
      FROZEN_WORDS, (r'^(encoder|positions|embedding_norm)', 0.1), (r'', 1.0))


def _finetune(config: ml_collections.ConfigDict, languages, steps) -> None:
  config.setting = 'en' if languages == ('en',) else 'all'
  config.data.image_text.datasets = ('tux_paint',)
  config.data.image_text.languages = languages
  config.num_train_steps = steps
  config.tasks = dict(
      contrastive=base.task_config('contrastive', 'image_text', 64),
      retrieval=base.task_config(
          'retrieval', 'image_text', 16, weight=1.0, num_candidates=4,
          negatives='hard', softmax_weight=1.0, add_dual_score=True))
  config.optimizer.learning_rate = 5e-4
  config.optimizer.rate_factors = (
      FROZEN_WORDS, (r'^(encoder|positions|embedding_norm)', 0.1), (r'', 1.0))


def get_config(stage: str = 'pretrain') -> ml_collections.ConfigDict:
  """Returns the config of one stage.

  Args:
    stage: one of `STAGES`.

  Raises:
    ValueError: unknown stage.
  """
  config = base.get_config()
  _model(config)
  _data(config)
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 20
  config.optimizer.weight_decay = 0.01
  config.optimizer.clip_norm = 1.0
  config.checkpoint_every_steps = 200
  config.keep_checkpoints = 1
  config.log_every_steps = 10
  if stage == 'warm_start':
    _warm_start(config)
  elif stage == 'pretrain':
    _pretrain(config)
  elif stage == 'en':
    _finetune(config, ('en',), steps=100)
  elif stage == 'all':
    _finetune(config, SUPERVISED, steps=200)
  else:
    raise ValueError(f'stage is {stage!r}; allowed: {", ".join(STAGES)}')
  return config
