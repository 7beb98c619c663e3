"""Catalan."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ca', name='Catalan', native_name='català',
      also=('cat',),
      sources=dict(tux_paint='ca', cldr='ca', udhr='cat',
                   freedict='')))
