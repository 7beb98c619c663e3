"""Finnish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='fi', name='Finnish', native_name='suomi',
      also=('fin',),
      sources=dict(tux_paint='fi', cldr='fi', udhr='fin',
                   freedict='fin')))
