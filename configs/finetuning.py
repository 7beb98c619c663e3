"""What the fine-tuning configs share: settings, and two recipes.

`--config=configs/finetune_NAME.py:SETTING[,LANGUAGE][,reference]`, for example
`configs/finetune_multi30k.py:all` or `…:each,de`. All four settings, one after
the other: `python -m m3p_jax.recipes.finetune --name=NAME`.
"""

from collections.abc import Sequence

import ml_collections

from configs import base

# The paper's, section 4.2: the pre-trained weights as they are, fine-tuned on
# English, on each language by itself, and on all of them together.
SETTINGS = ('no_finetune', 'en', 'each', 'all')


def get_config(argument: str, languages: Sequence[str], *,
               batch_size: int) -> ml_collections.ConfigDict:
  """Returns a config with setting, languages and tasks filled in.

  Args:
    argument: after the colon of `--config`.
    languages: of the captions.
    batch_size: anchors a step.

  Raises:
    ValueError: an unknown setting, language or recipe.
  """
  config = base.get_config()
  setting, *options = argument.split(',')
  if setting not in SETTINGS:
    raise ValueError(
        f'setting is {setting!r}; allowed: {", ".join(SETTINGS)}')
  chosen = tuple(languages) if setting in ('each', 'all') else ('en',)
  is_reference = False
  for option in options:
    if option == 'reference':
      is_reference = True
    elif setting == 'each' and option in languages:
      chosen = (option,)
    else:
      allowed = ['reference', *(languages if setting == 'each' else ())]
      raise ValueError(f'{argument!r}: {option!r} is not allowed; allowed: '
                       f'{", ".join(allowed)}')
  config.setting = setting
  config.data.languages = tuple(languages)
  config.data.image_text.languages = chosen
  config.tasks = (_reference if is_reference else _hard)(batch_size)
  config.optimizer.learning_rate = 5e-5
  config.optimizer.clip_norm = 5.0
  config.evaluation.languages = tuple(languages)
  return config


def _reference(batch_size: int) -> dict[str, ml_collections.ConfigDict]:
  """The release's recipe: random negatives, binary cross-entropy alone."""
  return {'retrieval': base.task_config(
      'retrieval', 'image_text', batch_size, num_candidates=4)}


def _hard(batch_size: int) -> dict[str, ml_collections.ConfigDict]:
  """A dual encoder, and a joint one that learns from its near misses."""
  return {
      'contrastive': base.task_config('contrastive', 'image_text', batch_size),
      'retrieval': base.task_config(
          'retrieval', 'image_text', batch_size, num_candidates=4,
          negatives='hard', softmax_weight=1.0)}
