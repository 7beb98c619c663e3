"""Russian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ru', name='Russian', native_name='русский',
      also=('rus',),
      sources=dict(tux_paint='ru', cldr='ru', udhr='rus',
                   freedict='rus')))
