"""Georgian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ka', name='Georgian', native_name='ქართული',
      also=('kat',),
      sources=dict(tux_paint='ka', cldr='ka', udhr='kat',
                   freedict='')))
