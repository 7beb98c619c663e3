"""Malagasy."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='mg', name='Malagasy', native_name='Malagasy',
      also=('plt', 'mlg'),
      sources=dict(tux_paint='', cldr='', udhr='plt',
                   freedict='')))
