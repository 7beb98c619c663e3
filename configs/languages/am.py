"""Amharic."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='am', name='Amharic', native_name='አማርኛ',
      also=('amh',),
      sources=dict(tux_paint='am', cldr='am', udhr='amh',
                   freedict='')))
