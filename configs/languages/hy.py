"""Armenian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='hy', name='Armenian', native_name='հայերեն',
      also=('hye',),
      sources=dict(tux_paint='hy', cldr='hy', udhr='hye',
                   freedict='')))
