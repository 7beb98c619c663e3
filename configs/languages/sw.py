"""Swahili."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sw', name='Swahili', native_name='Kiswahili',
      also=('swh', 'swa'),
      sources=dict(tux_paint='sw', cldr='sw', udhr='swh',
                   freedict='swh')))
