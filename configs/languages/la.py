"""Latin."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='la', name='Latin', native_name='Latina',
      also=('lat',),
      sources=dict(tux_paint='', cldr='', udhr='lat',
                   freedict='')))
