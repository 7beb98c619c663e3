"""Mongolian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='mn', name='Mongolian', native_name='монгол',
      also=('khk', 'mon'),
      sources=dict(tux_paint='', cldr='mn', udhr='khk',
                   freedict='')))
