"""German."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='de', name='German', native_name='Deutsch',
      also=('deu',),
      sources=dict(tux_paint='de', cldr='de', udhr='deu_1996',
                   freedict='deu')))
