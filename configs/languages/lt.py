"""Lithuanian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='lt', name='Lithuanian', native_name='lietuvių',
      also=('lit',),
      sources=dict(tux_paint='lt', cldr='lt', udhr='lit',
                   freedict='lit')))
