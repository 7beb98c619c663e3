"""Esperanto."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='eo', name='Esperanto', native_name='Esperanto',
      also=('epo',),
      sources=dict(tux_paint='eo', cldr='', udhr='epo',
                   freedict='')))
