"""Sinhala."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='si', name='Sinhala', native_name='සිංහල',
      also=('sin',),
      sources=dict(tux_paint='', cldr='si', udhr='sin',
                   freedict='')))
