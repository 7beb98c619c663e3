"""The page and its pictures as one ASGI application."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
from typing import Annotated, Any, Literal

import fastapi
from fastapi import exception_handlers
from fastapi import exceptions
from fastapi import responses
from fastapi.middleware import trustedhost

from input_pipeline import errors
from input_pipeline import paths
import m3p_jax
from m3p_jax.search import rankings
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
        "form-action 'self'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin'}

_FOLDER = pathlib.Path(__file__).parent
_TYPE = 'image/webp'
_SHOWN = 24  # Pictures at a time.
_KEPT = {'cache-control': 'private, max-age=86400'}


def create(get: Callable[[], finder_lib.Finder], *,
           hosts: Sequence[str] = ('*',), token: str = '') -> fastapi.FastAPI:
  """Returns the application.

  The page is asked for by the names of `hosts`; others are refused, so that no
  other site can pass as this one. Who has no token, where there is one, is
  refused as well. `get` returns the finder of the collection as it is now: a
  question keeps the one that it began with.
  """
  app = fastapi.FastAPI(
      title='m3p_jax', version=m3p_jax.__version__, docs_url=None,
      redoc_url=None, openapi_url=f'{api.PREFIX}/openapi.json')
  answers = answers_lib.Answers()
  _add_page(app, get, answers)
  _add_pictures(app, get)
  _add_questions(app, get, answers)
  api.add(app, get, answers)
  if token:
    app.add_middleware(access.Access, token=token)
  app.add_middleware(trustedhost.TrustedHostMiddleware,
                     allowed_hosts=list(hosts))

  @app.exception_handler(404)
  @app.exception_handler(405)
  async def refuse(request: fastapi.Request, error):
    await answers_lib.body(request, 0)  # Nobody else has read what was sent.
    return await exception_handlers.http_exception_handler(request, error)

  @app.exception_handler(exceptions.RequestValidationError)
  async def correct(request: fastapi.Request,
                    error: exceptions.RequestValidationError):
    await answers_lib.body(request, 0)
    return responses.JSONResponse(
        {'detail': '; '.join(map(_mistake, error.errors()))}, 422)

  @app.exception_handler(errors.UserError)
  async def explain(request: fastapi.Request, error: errors.UserError):
    status = 404 if isinstance(error, finder_lib.Gone) else getattr(
        error, 'status', 400)
    return responses.JSONResponse({'detail': str(error)}, status)

  return app


def _mistake(one: Mapping[str, Any]) -> str:
  """Returns a mistake of a request as FastAPI tells it, in a line."""
  found = '' if one['input'] is None else f'={one["input"]}'[:80]
  return f'{one["loc"][1]}{found}: {one["msg"]}'


def _asked(query: api.Query = '', like: str = '',
           mode: api.Mode = 'dual') -> finder_lib.Asked:
  return finder_lib.Asked(query, like, mode)


_Asked = Annotated[finder_lib.Asked, fastapi.Depends(_asked)]


def _shown(wanted: api.Wanted) -> rankings.Wanted:
  return wanted._replace(k=_SHOWN)


_Shown = Annotated[rankings.Wanted, fastapi.Depends(_shown)]


def _add_page(app: fastapi.FastAPI, get: Callable[[], finder_lib.Finder],
              answers: answers_lib.Answers) -> None:

  @app.get('/', include_in_schema=False)
  async def page(asked: _Asked, wanted: _Shown) -> responses.Response:
    finder, found = get(), {}
    if asked.query or asked.like:  # Of a browser without script, or a link.
      found = await answers.last(
          finder.search(asked, wanted), is_long=asked.is_long)
    return responses.HTMLResponse(
        finder.page(asked, wanted, **found),
        headers={'cache-control': 'no-cache'})

  @app.get('/page.{kind}', include_in_schema=False)
  def file(kind: Literal['js', 'css']) -> responses.Response:
    return responses.FileResponse(
        _FOLDER / f'page.{kind}', headers={'cache-control': 'no-cache'})


def _add_pictures(app: fastapi.FastAPI,
                  get: Callable[[], finder_lib.Finder]) -> None:
  large_pictures = pictures_lib.LargePictures()

  @app.get('/picture/{key}', include_in_schema=False)
  def picture(key: str) -> responses.Response:
    finder = get()
    try:
      content = paths.of(finder.searcher.index.thumbnail(
          finder.number(key))).read_bytes()
    except OSError as error:
      raise fastapi.HTTPException(404) from error
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)

  @app.get('/picture/{key}/large', include_in_schema=False)
  def large(key: str) -> responses.Response:
    finder = get()
    content = large_pictures.get(finder.searcher.index, finder.number(key))
    if content is None:
      return picture(key)
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)

  @app.get('/picture/{key}/file', include_in_schema=False)
  def file(key: str) -> responses.Response:
    finder = get()
    path = pictures_lib.original(finder.searcher.index, finder.number(key))
    if path is None:
      raise fastapi.HTTPException(
          404, 'The file is not where it was, or is another one now.')
    return responses.FileResponse(
        path, media_type='application/octet-stream',
        filename=os.path.basename(path))


def _add_questions(app: fastapi.FastAPI, get: Callable[[], finder_lib.Finder],
                   answers: answers_lib.Answers) -> None:

  @app.get('/search', include_in_schema=False)
  async def search(asked: _Asked, wanted: _Shown) -> responses.Response:
    return answers.stream(
        get().search(asked, wanted), is_long=asked.is_long)

  @app.get('/picture/{key}/detail', include_in_schema=False)
  async def show(key: str, query: api.Query = '',
                 languages: api.Languages = ()) -> responses.Response:
    finder = get()
    finder.number(key)  # What has gone is told before an answer begins.
    return answers.stream(
        finder.show(key, query, languages), is_long=True)

  @app.post('/look', include_in_schema=False)
  async def look(request: fastapi.Request, wanted: _Shown,
                 languages: api.Languages = ()) -> responses.Response:
    finder = get()
    return answers.stream(finder.look(await answers.picture(
        request, finder), languages, wanted), is_long=True)
