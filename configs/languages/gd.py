"""Scottish Gaelic."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='gd', name='Scottish Gaelic', native_name='Gàidhlig',
      also=('gla',),
      sources=dict(tux_paint='gd', cldr='gd', udhr='gla',
                   freedict='')))
