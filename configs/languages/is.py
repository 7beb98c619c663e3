"""Icelandic."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='is', name='Icelandic', native_name='íslenska',
      also=('isl',),
      sources=dict(tux_paint='is', cldr='is', udhr='isl',
                   freedict='')))
