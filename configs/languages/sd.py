"""Sindhi."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sd', name='Sindhi', native_name='سنڌي',
      also=('snd',),
      sources=dict(tux_paint='', cldr='sd', udhr='',
                   freedict='')))
