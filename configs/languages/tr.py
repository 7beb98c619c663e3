"""Turkish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='tr', name='Turkish', native_name='Türkçe',
      also=('tur',),
      sources=dict(tux_paint='tr', cldr='tr', udhr='tur',
                   freedict='tur')))
