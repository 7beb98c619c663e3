"""Frisian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='fy', name='Frisian', native_name='Frysk',
      also=('fry',),
      sources=dict(tux_paint='', cldr='', udhr='fri',
                   freedict='')))
