"""Kyrgyz."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ky', name='Kyrgyz', native_name='кыргызча',
      also=('kir',),
      sources=dict(tux_paint='', cldr='ky', udhr='kir',
                   freedict='')))
