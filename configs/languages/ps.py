"""Pashto."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ps', name='Pashto', native_name='پښتو',
      also=('pbu', 'pus', 'pst'),
      sources=dict(tux_paint='', cldr='ps', udhr='pbu',
                   freedict='')))
