"""Spanish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='es', name='Spanish', native_name='español',
      also=('spa',),
      sources=dict(tux_paint='es', cldr='es', udhr='spa',
                   freedict='spa')))
