"""Irish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ga', name='Irish', native_name='Gaeilge',
      also=('gle',),
      sources=dict(tux_paint='ga', cldr='ga', udhr='gle',
                   freedict='gle')))
