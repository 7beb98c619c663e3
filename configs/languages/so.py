"""Somali."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='so', name='Somali', native_name='Soomaali',
      also=('som',),
      sources=dict(tux_paint='', cldr='so', udhr='som',
                   freedict='')))
