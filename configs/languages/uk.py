"""Ukrainian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='uk', name='Ukrainian', native_name='українська',
      also=('ukr', 'ua'),
      sources=dict(tux_paint='uk', cldr='uk', udhr='ukr',
                   freedict='')))
