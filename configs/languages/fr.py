"""French."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='fr', name='French', native_name='français',
      also=('fra',),
      sources=dict(tux_paint='fr', cldr='fr', udhr='fra',
                   freedict='fra')))
