"""Swedish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sv', name='Swedish', native_name='svenska',
      also=('swe',),
      sources=dict(tux_paint='sv', cldr='sv', udhr='swe',
                   freedict='swe')))
