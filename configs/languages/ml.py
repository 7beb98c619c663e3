"""Malayalam."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ml', name='Malayalam', native_name='മലയാളം',
      also=('mal',),
      sources=dict(tux_paint='ml', cldr='ml', udhr='mal',
                   freedict='')))
