"""Portuguese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='pt', name='Portuguese', native_name='português',
      also=('por',),
      sources=dict(tux_paint='pt', cldr='pt-PT', udhr='por_PT',
                   freedict='por')))
