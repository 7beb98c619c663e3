"""Sundanese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='su', name='Sundanese', native_name='Basa Sunda',
      also=('sun',),
      sources=dict(tux_paint='', cldr='su', udhr='sun',
                   freedict='')))
