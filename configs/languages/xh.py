"""Xhosa."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='xh', name='Xhosa', native_name='isiXhosa',
      also=('xho',),
      sources=dict(tux_paint='', cldr='xh', udhr='xho',
                   freedict='')))
