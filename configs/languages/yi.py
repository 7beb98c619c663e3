"""Yiddish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='yi', name='Yiddish', native_name='ייִדיש',
      also=('ydd', 'yid'),
      sources=dict(tux_paint='', cldr='', udhr='ydd',
                   freedict='')))
