"""Tamil."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ta', name='Tamil', native_name='தமிழ்',
      also=('tam',),
      sources=dict(tux_paint='ta', cldr='ta', udhr='tam',
                   freedict='')))
