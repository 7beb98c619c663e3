"""Igbo."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ig', name='Igbo', native_name='Igbo',
      also=('ibo',),
      sources=dict(tux_paint='', cldr='ig', udhr='ibo',
                   freedict='')))
