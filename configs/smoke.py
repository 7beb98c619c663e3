"""Every code path on a little real data, in under two minutes on two cores.

Reads a few pictures of Tux Paint, sentences of udhr and the French dictionary:
tests/test_end_to_end.py prepares them and runs this. A small model with
XLM-R's whole vocabulary; no downloaded weights.
"""

import ml_collections

from configs import base

LANGUAGES = ('en', 'de', 'fr', 'ja')


def get_config() -> ml_collections.ConfigDict:
  """Returns a config whose run takes seconds and proves nothing but wiring."""
  config = base.get_config()
  config.model.update(dict(
      width=32, num_heads=2, mlp_width=64, num_layers=2, max_positions=64,
      region_feature_dim=1280, num_region_classes=1001, num_languages=4,
      embedding_dim=16, refiner_layers=1, match_head='first+product',
      dtype='float32', remat='input'))
  data = config.data
  data.languages = LANGUAGES
  data.text.datasets, data.text.languages = ('udhr',), LANGUAGES
  data.text.max_length = 24
  data.image_text.datasets = ('tux_paint',)
  data.image_text.languages = ('en', 'de')
  data.image_text.max_length = 12
  data.image_text.code_switch.update(dict(
      rate=0.5, languages=('fr',)))
  config.tasks = dict(
      xmlm=base.task_config('masked_lm', 'text', 4),
      mc_mlm=base.task_config('masked_lm', 'image_text', 4),
      mc_mrm=base.task_config('masked_region', 'image_text', 4),
      mc_vlm=base.task_config('matching', 'image_text', 4),
      contrastive=base.task_config('contrastive', 'image_text', 4),
      retrieval=base.task_config(
          'retrieval', 'image_text', 4, num_candidates=2, negatives='hard',
          softmax_weight=1.0, add_dual_score=True))
  config.fit_first_values = True
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 2
  config.num_train_steps = 8
  config.log_every_steps = 2
  config.eval_batches = 1
  config.checkpoint_every_steps = 3
  config.evaluation.update(dict(
      mode='rerank', top_k=3, languages=('en', 'de'), max_length=12,
      batch_size=16, joint_weight=1.0))
  return config
