"""Hausa."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ha', name='Hausa', native_name='Hausa',
      also=('hau',),
      sources=dict(tux_paint='', cldr='ha', udhr='hau_NG',
                   freedict='')))
