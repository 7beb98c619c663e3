"""The page and its pictures as one ASGI application."""

from collections.abc import Sequence
import pathlib
from typing import Literal

import fastapi
from fastapi import exception_handlers
from fastapi import responses
from fastapi.middleware import trustedhost

from input_pipeline import errors
from input_pipeline import paths
import m3p_jax
from m3p_jax.serve import access
from m3p_jax.serve import answers as answers_lib
from m3p_jax.serve import api
from m3p_jax.serve import finder as finder_lib
from m3p_jax.serve import pictures as pictures_lib

# Of all answers.
HEADERS = {
    'content-security-policy':
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin'}

_FOLDER = pathlib.Path(__file__).parent
_TYPE = 'image/webp'
_KEPT = {'cache-control': 'private, max-age=86400'}


def create(finder: finder_lib.Finder, *, hosts: Sequence[str] = ('*',),
           token: str = '') -> fastapi.FastAPI:
  """Returns the application.

  The page is asked for by the names of `hosts`; others are refused, so that no
  other site can pass as this one. Who has no token, where there is one, is
  refused as well.
  """
  app = fastapi.FastAPI(
      title='m3p_jax', version=m3p_jax.__version__, docs_url=None,
      redoc_url=None, openapi_url=f'{api.PREFIX}/openapi.json')
  _add_page(app, finder.page())
  _add_pictures(app, finder)
  _add_questions(app, finder)
  if token:
    app.add_middleware(access.Access, token=token)
  app.add_middleware(trustedhost.TrustedHostMiddleware,
                     allowed_hosts=list(hosts))

  @app.exception_handler(404)
  @app.exception_handler(405)
  async def refuse(request: fastapi.Request, error):
    await answers_lib.body(request, 0)  # Nobody else has read what was sent.
    return await exception_handlers.http_exception_handler(request, error)

  @app.exception_handler(errors.UserError)
  async def explain(request: fastapi.Request, error: errors.UserError):
    status = 404 if isinstance(error, finder_lib.Gone) else getattr(
        error, 'status', 400)
    return responses.JSONResponse({'detail': str(error)}, status)

  return app


def _add_page(app: fastapi.FastAPI, html: str) -> None:

  @app.get('/', include_in_schema=False)
  def page() -> responses.Response:
    return responses.HTMLResponse(html, headers={'cache-control': 'no-cache'})

  @app.get('/page.{kind}', include_in_schema=False)
  def file(kind: Literal['js', 'css']) -> responses.Response:
    return responses.FileResponse(
        _FOLDER / f'page.{kind}', headers={'cache-control': 'no-cache'})


def _add_pictures(app: fastapi.FastAPI, finder: finder_lib.Finder) -> None:
  large_pictures = pictures_lib.LargePictures(finder.searcher.index)

  @app.get('/picture/{key}', include_in_schema=False)
  def picture(key: str) -> responses.Response:
    try:
      content = paths.of(finder.searcher.index.thumbnail(
          finder.number(key))).read_bytes()
    except OSError as error:
      raise fastapi.HTTPException(404) from error
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)

  @app.get('/picture/{key}/large', include_in_schema=False)
  def large(key: str) -> responses.Response:
    content = large_pictures.get(finder.number(key))
    if content is None:
      return picture(key)
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)


def _add_questions(app: fastapi.FastAPI, finder: finder_lib.Finder) -> None:
  answers = answers_lib.Answers()
  api.add(app, finder, answers)

  @app.get('/search', include_in_schema=False)
  async def search(mode: api.Mode, query: api.Query = ''
                   ) -> responses.Response:
    return answers.stream(
        finder.search(query, mode), is_long=mode != 'dual')

  @app.get('/picture/{key}/detail', include_in_schema=False)
  async def show(key: str, query: api.Query = '',
                 languages: api.Languages = ()) -> responses.Response:
    finder.number(key)  # What has gone is told before an answer begins.
    return answers.stream(
        finder.show(key, query, languages), is_long=True)

  @app.post('/look', include_in_schema=False)
  async def look(request: fastapi.Request,
                 languages: api.Languages = ()) -> responses.Response:
    return answers.stream(finder.look(
        await answers.picture(request, finder), languages), is_long=True)
