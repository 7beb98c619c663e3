"""Portuguese (Brazil)."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='pt_BR', name='Portuguese (Brazil)',
      native_name='português (Brasil)',
      also=(),
      sources=dict(tux_paint='pt_BR', cldr='pt', udhr='por_BR',
                   freedict='')))
