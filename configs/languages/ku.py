"""Kurdish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ku', name='Kurdish', native_name='kurdî',
      also=('kmr', 'kur'),
      sources=dict(tux_paint='ku', cldr='ku', udhr='kmr',
                   freedict='')))
