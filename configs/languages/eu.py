"""Basque."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='eu', name='Basque', native_name='euskara',
      also=('eus',),
      sources=dict(tux_paint='eu', cldr='eu', udhr='eus',
                   freedict='')))
