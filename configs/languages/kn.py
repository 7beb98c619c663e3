"""Kannada."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='kn', name='Kannada', native_name='ಕನ್ನಡ',
      also=('kan',),
      sources=dict(tux_paint='', cldr='kn', udhr='kan',
                   freedict='')))
