"""Asturian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ast', name='Asturian', native_name='asturianu',
      also=(),
      sources=dict(tux_paint='ast', cldr='ast', udhr='ast',
                   freedict='')))
