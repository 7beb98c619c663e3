"""The paper's pre-training at base size, for a TPU slice and one's own data.

Source: M3P, section 3 and 4.1; reference.md, sections 1, 2 and 5. Prepare a
multilingual text set and captioned pictures with 100 detected regions first
(see README, "Your own data"), name them below or on the command line:
--config.data.text.datasets=('…',). What a run of this size gives was not
measured here.
"""

import ml_collections

from configs import base
from input_pipeline import languages


def get_config() -> ml_collections.ConfigDict:
  """Returns the recipe: three streams, four objectives, code-switching."""
  config = base.get_config()
  config.data.languages = languages.codes()
  config.model.num_languages = len(config.data.languages)
  config.model.text_position = 100
  config.data.text.datasets = ('udhr',)
  config.data.text.languages = tuple(
      languages.source_codes('udhr').values())
  config.data.text.max_length = 128
  config.data.text.concatenate = True
  config.data.image_text.datasets = ('captions',)
  config.data.image_text.languages = ('en',)
  # With 100 regions, rows as long as those of text.
  config.data.image_text.max_length = 28
  # Every word is replaced with probability β (paper); languages drawn per word.
  config.data.image_text.code_switch.update(dict(
      rate=0.5, language_per='word',
      languages=('de', 'fr', 'es', 'cs', 'ru', 'hi', 'ar', 'ja', 'fi', 'tr',
                 'hu')))
  # Rows a step over all devices: a start, to be fitted to the slice.
  config.tasks = dict(
      xmlm=base.task_config('masked_lm', 'text', 512),
      # A picture is read once for all three, as in the paper.
      mc_mlm=base.task_config('masked_lm', 'image_text', 512, rows='shared'),
      # As the release: of 100 boxes that overlap, hiding all that cover half of
      # a hidden one would leave about half of the picture.
      mc_mrm=base.task_config(
          'masked_region', 'image_text', 512, rows='shared', max_overlap=1.0),
      # Each with a wrong pair: 2,048 rows in all.
      mc_vlm=base.task_config('matching', 'image_text', 256, rows='shared'))
  config.model.remat = 'projections'
  config.optimizer.learning_rate = 1e-4
  config.num_train_steps = 400_000
  config.eval_every_steps = 5_000
  config.evaluation.mode = 'dual'
  return config
