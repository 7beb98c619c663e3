"""Gujarati."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='gu', name='Gujarati', native_name='ગુજરાતી',
      also=('guj',),
      sources=dict(tux_paint='gu', cldr='gu', udhr='guj',
                   freedict='')))
