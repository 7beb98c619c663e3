"""Javanese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='jv', name='Javanese', native_name='Jawa',
      also=('jav',),
      sources=dict(tux_paint='', cldr='jv', udhr='jav',
                   freedict='')))
