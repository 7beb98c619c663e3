"""Captioning from trained weights: the encoder goes on to write what it sees.

configs/captioning.py, or configs/captioning.py:translation: each caption is
written from the picture and its caption in `--config.data.image_text.sources`;
`--config.tasks.captioning.options.use_picture=False` leaves the picture out.

Made for weights of multilingual E5's size, such as weights/photos, which read
pictures of `prepare --features=grid-lite2`; weights of another geometry bring
theirs. What is prepared and in which languages is for the command line:
`--config.data.image_text.datasets`, `--config.data.languages` and
`--config.data.image_text.languages`. Imported weights of M3P, whose decoder
learned from pictures alone, go on so by `--config.model.joint_memory=False`.
"""

import ml_collections

from configs import base
from configs import quickstart
from input_pipeline import errors


def get_config(what: str = 'captions') -> ml_collections.ConfigDict:
  """Returns the config: captions, or their 'translation'."""
  errors.check_choice(
      'configs/captioning.py:WHAT', what, ('captions', 'translation'))
  config = quickstart.get_config('all')
  config.init_from = 'weights/photos'
  config.data.languages = config.data.text.languages = ('en',)
  config.data.image_text.update(dict(
      datasets=('captions',), languages=('en',), max_length=24))
  config.data.image_text.code_switch.update(dict(rate=0.0, languages=()))
  config.tasks = dict(captioning=base.task_config(
      'captioning', 'parallel' if what == 'translation' else 'image_text', 16,
      sampled_words=8_192))
  # Without the words' frequencies, hundreds of steps would go into them.
  config.fit_first_values = True
  config.num_train_steps = 1_500
  config.optimizer.warmup_steps = 100
  if what == 'translation':
    config.tasks.captioning.options.use_picture = True
    config.generate.source = 'en'
  config.model.dropout = 0.0
  # M3P's own decoder reads pictures alone; E5's layers cannot.
  config.model.joint_memory = True
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rate_factors = (
      # Words stay, as in the quickstart; what is new learns fastest. Languages
      # begin alike, and have to be as far from each other as words are.
      (r'^tokens/', 0.0), (r'^(languages|token_bias)', 10.0),
      (r'cross_attention', 1.0),
      (r'^(encoder|positions|embedding_norm|region_embedding|refiner)', 0.2),
      # Heads that this objective does not read.
      (r'', 0.0))
  config.evaluation.update(dict(
      dataset='captions', split='validation', languages=('all',)))
  return config
