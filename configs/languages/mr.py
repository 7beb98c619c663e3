"""Marathi."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='mr', name='Marathi', native_name='मराठी',
      also=('mar',),
      sources=dict(tux_paint='mr', cldr='mr', udhr='mar',
                   freedict='')))
