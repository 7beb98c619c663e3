"""How much of a config's batches is padding.

python -m benchmarks.padding --config=configs/quickstart.py:pretrain
    [--config.data.data_dir=DIR --config.data.text.concatenate=True]
"""

from collections.abc import Sequence
import json

from absl import flags
from absl import logging
from ml_collections import config_flags

from input_pipeline import errors
from input_pipeline import pipeline

_BATCHES = 50


def main(argv: Sequence[str]) -> None:
  """Prints each task's share of padded places, of text and of regions."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  config = flags.FLAGS.config
  if config is None:
    raise errors.UserError('--config is missing')
  logging.set_verbosity(logging.ERROR)
  totals: dict[str, dict[str, list[int]]] = {}
  stream = pipeline.build(config.data, config.tasks, seed=config.seed)
  for batches in stream.take(_BATCHES):
    for task, batch in batches.items():
      masks = {'text': batch.text_mask_BL}
      if batch.regions is not None:
        masks['regions'] = batch.regions.mask_BR
      for name, mask in masks.items():
        total = totals.setdefault(task, {}).setdefault(name, [0, 0])
        total[0] += int((~mask.numpy()).sum())
        total[1] += mask.numpy().size
  print(json.dumps({
      task: {name: round(padded / size, 4)
             for name, (padded, size) in found.items()}
      for task, found in totals.items()}, indent=2))


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'Config with data and tasks.')
  errors.run_main(main)
