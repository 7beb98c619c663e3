"""Indonesian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='id', name='Indonesian', native_name='Indonesia',
      also=('ind', 'in'),
      sources=dict(tux_paint='id', cldr='id', udhr='ind',
                   freedict='ind')))
