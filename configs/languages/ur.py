"""Urdu."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ur', name='Urdu', native_name='اردو',
      also=('urd',),
      sources=dict(tux_paint='', cldr='ur', udhr='urd',
                   freedict='')))
