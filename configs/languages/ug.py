"""Uyghur."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ug', name='Uyghur', native_name='ئۇيغۇرچە',
      also=('uig',),
      sources=dict(tux_paint='', cldr='ug', udhr='uig_arab',
                   freedict='')))
