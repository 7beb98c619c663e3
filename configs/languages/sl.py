"""Slovenian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sl', name='Slovenian', native_name='slovenščina',
      also=('slv',),
      sources=dict(tux_paint='sl', cldr='sl', udhr='slv',
                   freedict='')))
