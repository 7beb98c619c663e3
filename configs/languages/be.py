"""Belarusian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='be', name='Belarusian', native_name='беларуская',
      also=('bel',),
      sources=dict(tux_paint='be', cldr='be', udhr='bel',
                   freedict='')))
