"""Bengali."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='bn', name='Bengali', native_name='বাংলা',
      also=('ben',),
      sources=dict(tux_paint='', cldr='bn', udhr='ben',
                   freedict='')))
