"""Text and names inside HTML."""

import html

from input_pipeline import languages

# Gradio reads these as parts of its templates.
_TEMPLATE = str.maketrans({'$': '&#36;', '{': '&#123;', '}': '&#125;',
                           '`': '&#96;'})


def text(value: str) -> str:
  """Returns text that is shown as it is, in elements and attributes.

  >>> text('<b>${1}')
  '&lt;b&gt;&#36;&#123;1&#125;'
  """
  return html.escape(value, quote=True).translate(_TEMPLATE)


def language_name(code: str) -> str:
  """Returns the English name of a language."""
  return text(languages.name(code))


def language_attributes(code: str) -> str:
  """Returns what an element in this language carries.

  >>> language_attributes('zh_CN')
  'lang="zh-CN" title="Chinese (simplified)"'
  """
  return f'lang="{text(code.replace("_", "-"))}" title="{language_name(code)}"'


def percent(value: float) -> str:
  """Returns a probability, never 0 or 100 where it is not.

  >>> percent(0.5), percent(0.9996), percent(0.0001)
  ('50 %', '>99 %', '<1 %')
  """
  if value > 0.99:
    return '>99 %'
  return '<1 %' if value < 0.01 else f'{100 * value:.0f} %'
