"""Breton."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='br', name='Breton', native_name='brezhoneg',
      also=('bre',),
      sources=dict(tux_paint='', cldr='br', udhr='bre',
                   freedict='')))
