"""Italian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='it', name='Italian', native_name='italiano',
      also=('ita',),
      sources=dict(tux_paint='it', cldr='it', udhr='ita',
                   freedict='ita')))
