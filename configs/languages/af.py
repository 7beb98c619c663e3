"""Afrikaans."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='af', name='Afrikaans', native_name='Afrikaans',
      also=('afr',),
      sources=dict(tux_paint='af', cldr='af', udhr='afr',
                   freedict='afr')))
