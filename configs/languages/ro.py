"""Romanian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ro', name='Romanian', native_name='română',
      also=('ron',),
      sources=dict(tux_paint='ro', cldr='ro', udhr='ron_2006',
                   freedict='')))
