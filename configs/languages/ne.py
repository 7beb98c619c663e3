"""Nepali."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ne', name='Nepali', native_name='नेपाली',
      also=('npi', 'nep'),
      sources=dict(tux_paint='', cldr='ne', udhr='nep',
                   freedict='')))
