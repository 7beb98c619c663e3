"""Galician."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='gl', name='Galician', native_name='galego',
      also=('glg',),
      sources=dict(tux_paint='gl', cldr='gl', udhr='glg',
                   freedict='')))
