"""Vietnamese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='vi', name='Vietnamese', native_name='Tiếng Việt',
      also=('vie',),
      sources=dict(tux_paint='vi', cldr='vi', udhr='vie',
                   freedict='')))
