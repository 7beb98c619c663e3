"""Slovak."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sk', name='Slovak', native_name='slovenčina',
      also=('slk',),
      sources=dict(tux_paint='sk', cldr='sk', udhr='slk',
                   freedict='')))
