"""Estonian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='et', name='Estonian', native_name='eesti',
      also=('ekk', 'est'),
      sources=dict(tux_paint='', cldr='et', udhr='est',
                   freedict='')))
