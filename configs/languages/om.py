"""Oromo."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='om', name='Oromo', native_name='Oromoo',
      also=('gaz', 'orm'),
      sources=dict(tux_paint='', cldr='om', udhr='gax',
                   freedict='')))
