"""Zulu."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='zu', name='Zulu', native_name='isiZulu',
      also=('zul',),
      sources=dict(tux_paint='zu', cldr='zu', udhr='zul',
                   freedict='')))
