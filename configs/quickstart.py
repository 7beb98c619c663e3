"""The whole of M3P, small, on real data: the stages of `make quickstart`.

`--config=configs/quickstart.py:STAGE` with STAGE one of `STAGES` below.
Everything was chosen on validation splits.
"""

import ml_collections

from configs import base
from configs import languages

SUPERVISED = languages.SUPERVISED
LANGUAGES = languages.EVALUATED
# Languages with a dictionary that covers over half of Tux Paint's English
# words. It holds words, not captions: some held-out languages have one.
DICTIONARIES = ('de', 'fr', 'es', 'cs', 'ru', 'hi', 'ar', 'ja', 'fi', 'tr',
                'hu', 'zh_CN', 'pl', 'el', 'sv', 'it')
STAGES = ('warm_start', 'pretrain', 'en', 'all', 'ablation_warm_start',
          'ablation_en')

# The 250,002-row word table stays as it is: minutes of training cannot move
# words that the captions never show, and its moments would fill the memory.
_FROZEN_WORDS = (r'^tokens/', 0.0)
# What is new learns fast; what E5 has learned in a billion pairs, slowly.
_SLOW_ENCODER = (
    _FROZEN_WORDS, (r'^(encoder|positions|embedding_norm)', 0.1),
    # Adam moves every entry by the same step, and these begin far from 0 or
    # at 1: fast enough to be learned in minutes.
    (r'^(token_bias|match_product)$', 10.0), (r'^(pooler|match)/', 3.0),
    (r'', 1.0))


def _model(config: ml_collections.ConfigDict) -> None:
  """Sets the geometry of multilingual-E5-small and EfficientNet-Lite0."""
  config.model.update(dict(
      width=384, num_heads=12, mlp_width=1536, num_layers=12,
      # 36: as many regions as either extractor gives, or fewer.
      max_positions=512, text_position=36, region_feature_dim=1280,
      num_region_classes=1001,
      num_languages=1, embedding_dim=384, dropout=0.1,
      attention_dropout=0.0,
      # A CPU reads and writes what a narrow layer keeps in more time than it
      # computes it again: 12 layers of 96 × 20 states forward and backward in
      # bfloat16 take 0.76 s so and 1.78 s with all kept (2 cores with AMX).
      remat='input',
      # Position 0 alone takes far more steps than there are here.
      match_head='first+product'))


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
  switch.sentence_rate = switch.rate = 0.5
  switch.languages = DICTIONARIES
  config.evaluation.mode = 'dual'
  config.evaluation.languages = LANGUAGES
  config.evaluation.max_length = 24


def _warm_start(config: ml_collections.ConfigDict, steps: int) -> None:
  """The region embedding finds the space of E5's text vectors; E5 is frozen."""
  config.init_from = 'e5'
  config.num_train_steps = steps
  config.tasks = dict(region_alignment=base.task_config(
      'region_alignment', 'image_text', 128))
  config.optimizer.learning_rate = 2e-3
  config.optimizer.rate_factors = (
      (r'^(region_embedding|region_projection|text_projection)/', 1.0),
      (r'^log_scale$', 1.0), (r'', 0.0))


def _pretrain(config: ml_collections.ConfigDict) -> None:
  config.fit_first_values = True
  config.num_train_steps = 200
  # Enough pairs for an accuracy to within two points.
  config.eval_batches = 24
  config.tasks = dict(
      xmlm=base.task_config('masked_lm', 'text', 16),
      mc_mlm=base.task_config('masked_lm', 'image_text', 32),
      mc_mrm=base.task_config('masked_region', 'image_text', 24),
      mc_vlm=base.task_config('matching', 'image_text', 32),
      contrastive=base.task_config('contrastive', 'image_text', 32))
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rate_factors = _SLOW_ENCODER


def _finetune(config: ml_collections.ConfigDict, languages: tuple[str, ...],
              steps: int, batch_size: int = 64) -> None:
  """The dual encoder learns; the joint one follows by what both share.

  Training the match head too, on candidates of 500 pictures, made re-ranking
  worse in a trial without masked tasks: on validation it added 0.1 to the dual
  encoder's 46.7 after it, and 0.7 without. After this pre-training re-ranking
  adds nothing that can be told from chance.
  """
  config.setting = 'en' if languages == ('en',) else 'all'
  config.data.image_text.datasets = ('tux_paint',)
  config.data.image_text.languages = languages
  config.num_train_steps = steps
  config.tasks = dict(contrastive=base.task_config(
      'contrastive', 'image_text', batch_size))
  config.optimizer.learning_rate = 7e-4
  config.optimizer.rate_factors = _SLOW_ENCODER


def get_config(stage: str = 'pretrain') -> ml_collections.ConfigDict:
  """Returns the config of one of `STAGES`, or raises ValueError."""
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
    _warm_start(config, steps=300)
  elif stage == 'pretrain':
    _pretrain(config)
  elif stage == 'en':
    _finetune(config, ('en',), steps=60)
  elif stage == 'all':
    _finetune(config, SUPERVISED, steps=120, batch_size=96)
  elif stage == 'ablation_warm_start':
    _warm_start(config, steps=200)
  elif stage == 'ablation_en':
    _finetune(config, ('en',), steps=50)
  else:
    raise ValueError(f'stage is {stage!r}; allowed: {", ".join(STAGES)}')
  return config
