"""Hindi."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='hi', name='Hindi', native_name='हिन्दी',
      also=('hin',),
      sources=dict(tux_paint='hi', cldr='hi', udhr='hin',
                   freedict='hin')))
