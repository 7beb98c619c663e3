"""Yoruba."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='yo', name='Yoruba', native_name='Yorùbá',
      also=('yor',),
      sources=dict(tux_paint='', cldr='yo', udhr='yor',
                   freedict='')))
