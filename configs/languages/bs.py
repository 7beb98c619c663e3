"""Bosnian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='bs', name='Bosnian', native_name='bosanski',
      also=('bos',),
      sources=dict(tux_paint='', cldr='bs', udhr='bos_latn',
                   freedict='')))
