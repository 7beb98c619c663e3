"""Telugu."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='te', name='Telugu', native_name='తెలుగు',
      also=('tel',),
      sources=dict(tux_paint='te', cldr='te', udhr='tel',
                   freedict='')))
