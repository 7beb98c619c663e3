"""Dutch."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='nl', name='Dutch', native_name='Nederlands',
      also=('nld',),
      sources=dict(tux_paint='nl', cldr='nl', udhr='nld',
                   freedict='nld')))
