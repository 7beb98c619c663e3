"""Chinese (traditional)."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='zh_TW', name='Chinese (traditional)', native_name='繁體中文',
      also=('zh_Hant', 'zht'),
      sources=dict(tux_paint='zh_TW', cldr='zh-Hant', udhr='cmn_hant',
                   freedict='')))
