"""Fine-tuning on Tux Paint from the quickstart's pre-training.

The stages `en` and `all` of the quickstart, and `each`: one run a language.
--init_from is the quickstart's WORKDIR/pretrain.
"""

import ml_collections

from configs import finetuning
from configs import quickstart
from input_pipeline import errors

LANGUAGES = quickstart.SUPERVISED
# Mean recall of others, shown below the table. Tried once on nearly this
# protocol (pictures and captions in pairs, 138 pictures, one seed), to be
# beaten: two heads on frozen encoders, trained contrastively.
BESIDE = {
    'floor: frozen encoders, trained on en': {
        'en': 41.9, 'de': 20.8, 'zh_CN': 29.4, 'hi': 25.1, 'ka': 12.2},
    'floor: frozen encoders, trained on 13 languages': {
        'en': 44.6, 'de': 30.7, 'zh_CN': 35.1, 'hi': 33.5, 'ka': 21.5,
        'am': 22.0, 'zu': 16.2}}


def get_config(setting: str = 'all') -> ml_collections.ConfigDict:
  """Returns the config of one setting; see `configs/finetuning.py`.

  Of its recipes only the quickstart's, contrastive alone, is used: there are
  too few pictures for the joint encoder to learn more than it knows.

  Raises:
    ValueError: an unknown setting or language.
    UserError: the release's recipe.
  """
  if 'reference' in setting.split(','):
    raise errors.UserError(
        f'{setting!r}: Tux Paint has the quickstart\'s recipe alone; allowed: '
        'no "reference"')
  chosen = finetuning.get_config(setting, LANGUAGES, batch_size=64)
  config = quickstart.get_config('en' if setting == 'en' else 'all')
  if chosen.data.image_text.languages != LANGUAGES:
    config = quickstart.get_config('en')
  config.data.image_text.languages = chosen.data.image_text.languages
  config.setting = chosen.setting
  return config
