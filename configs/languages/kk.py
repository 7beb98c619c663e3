"""Kazakh."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='kk', name='Kazakh', native_name='қазақ тілі',
      also=('kaz',),
      sources=dict(tux_paint='', cldr='kk', udhr='kaz',
                   freedict='')))
