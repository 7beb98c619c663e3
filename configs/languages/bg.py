"""Bulgarian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='bg', name='Bulgarian', native_name='български',
      also=('bul',),
      sources=dict(tux_paint='bg', cldr='bg', udhr='bul',
                   freedict='bul')))
