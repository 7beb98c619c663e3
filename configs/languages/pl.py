"""Polish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='pl', name='Polish', native_name='polski',
      also=('pol',),
      sources=dict(tux_paint='pl', cldr='pl', udhr='pol',
                   freedict='pol')))
