"""Kabyle."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='kab', name='Kabyle', native_name='Taqbaylit',
      also=(),
      sources=dict(tux_paint='kab', cldr='kab', udhr='',
                   freedict='')))
