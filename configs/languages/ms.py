"""Malay."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ms', name='Malay', native_name='Melayu',
      also=('zsm', 'msa'),
      sources=dict(tux_paint='ms', cldr='ms', udhr='mly_latn',
                   freedict='')))
