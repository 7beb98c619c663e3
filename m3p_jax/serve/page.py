"""The page: Gradio's components, and what happens when they are used."""

import os
import pathlib
from typing import Any

# Before Gradio is imported, which would ask its makers' servers otherwise.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
os.environ['HF_HUB_OFFLINE'] = '1'

import gradio

from m3p_jax.serve import finder as finder_lib
from m3p_jax.serve import markup
from m3p_jax.serve import uploads

_STATIC = pathlib.Path(__file__).parent / 'static'
# Requests of one kind that are worked on at the same time.
_AT_ONCE = 8
_MOST_WAITING = 200


def looks() -> dict[str, Any]:
  """Returns theme and style, as `gradio.mount_gradio_app` takes them.

  The fonts are the visitor's own: none is fetched from anywhere.
  """
  theme = gradio.themes.Base(
      primary_hue='indigo', neutral_hue='slate', radius_size='lg',
      font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
  # Gradio's own colours are too pale to read for some (WCAG's 4.5 to 1).
  theme.set(
      button_primary_background_fill='*primary_600',
      button_primary_background_fill_hover='*primary_700',
      block_info_text_color='*neutral_600', block_radius='16px',
      input_placeholder_color='*neutral_500',
      input_placeholder_color_dark='*neutral_400')
  return {'theme': theme, 'css': (_STATIC / 'page.css').read_text('utf-8'),
          'head': '<meta name="color-scheme" content="light dark">'}


def build(finder: finder_lib.Finder) -> gradio.Blocks:
  """Returns the page over one collection."""
  with gradio.Blocks(
      title='M3P · search pictures in your language', fill_width=True,
      analytics_enabled=False) as blocks:
    gradio.HTML(finder.header(), apply_default_css=False, js_on_load=None,
                elem_classes='m3p-head')
    with gradio.Row(elem_classes='m3p-ask'):
      query = gradio.Textbox(
          label='What the picture shows, in any language', lines=1,
          max_lines=1, max_length=finder_lib.MAX_QUERY, autofocus=True,
          placeholder=' · '.join(text for _, text in finder.examples[:3]),
          elem_id='m3p-query', scale=5)
      go = gradio.Button('Search', variant='primary', scale=0, min_width=112,
                         elem_id='m3p-go')
    with gradio.Row(elem_classes='m3p-options'):
      mode = gradio.Radio(
          [(name, value) for value, name in finder_lib.MODES.items()],
          value='dual', label='Scoring', elem_id='m3p-mode',
          info='Dual is instant; the joint encoder looks again, slower.')
      languages = gradio.Dropdown(
          [(markup.language_name(code), code) for code in finder.languages],
          value=_first_languages(finder), multiselect=True,
          label='Captions in', elem_id='m3p-languages',
          info='Languages that a picture is described in.')
      drop = gradio.HTML(
          html_template=(_STATIC / 'drop.html').read_text('utf-8'),
          js_on_load=(_STATIC / 'drop.js').read_text('utf-8'),
          apply_default_css=False, elem_id='m3p-drop', value='',
          limit=uploads.MAX_BYTES, types=uploads.TYPES)
    with gradio.Row(elem_classes='m3p-found'):
      results = gradio.HTML(
          finder.welcome(), apply_default_css=False, elem_id='m3p-results',
          js_on_load=(_STATIC / 'results.js').read_text('utf-8'), scale=3)
      detail = gradio.HTML(
          '', apply_default_css=False, elem_id='m3p-panel',
          js_on_load=(_STATIC / 'panel.js').read_text('utf-8'), scale=2)
    asked = gradio.State('')
    _connect(finder, query=query, go=go, mode=mode, languages=languages,
             drop=drop, results=results, detail=detail, asked=asked)
  return blocks.queue(default_concurrency_limit=_AT_ONCE,
                      max_size=_MOST_WAITING)


def _first_languages(finder: finder_lib.Finder) -> list[str]:
  """Returns English and German where there are any, else the first two."""
  usual = [code for code in finder.languages if code in ('en', 'de')]
  return usual or finder.languages[:2]


def _connect(finder: finder_lib.Finder, *, query, go, mode, languages, drop,
             results, detail, asked) -> None:
  """Says what happens when; names without `_` can be called by programs."""

  def search(query: str, mode: str, request: gradio.Request):
    for part in finder.search(query, mode, request.session_hash or ''):
      yield part, '', query.strip()

  def example(mode: str, request: gradio.Request, event: gradio.EventData):
    # As the query field's own text arrives: without halves of characters.
    text = str(event._data['query']).encode('utf-8', 'replace').decode()
    for part in finder.search(text, mode, request.session_hash or ''):
      yield text, part, '', text

  def show(asked: str, languages: list[str], event: gradio.EventData):
    yield from finder.show(int(event._data['number']), asked, languages)

  def look(languages: list[str], request: gradio.Request,
           event: gradio.EventData):
    for parts in finder.look(
        event._data['name'], languages, request.session_hash or ''):
      yield *parts, ''

  quiet = dict(show_progress='hidden', trigger_mode='multiple')
  gradio.on([query.submit, go.click, mode.input], search, [query, mode],
            [results, detail, asked], api_name='search', **quiet)
  results.submit(example, mode, [query, results, detail, asked],
                 api_visibility='private', **quiet)
  results.select(show, [asked, languages], detail,
                 api_visibility='private', **quiet)
  drop.upload(look, languages, [results, detail, asked],
              api_visibility='private', **quiet)
  detail.clear(lambda: '', None, detail, api_visibility='private', **quiet)
