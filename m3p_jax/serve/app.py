"""The page and its pictures as one ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
import json
import pathlib
from typing import Annotated, Any, Literal

from absl import logging
import fastapi
from fastapi import exception_handlers
from fastapi import responses
from fastapi.middleware import trustedhost

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax.search import index as index_lib
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
# Questions that are worked on at the same time, and that may wait.
_AT_ONCE = 8
_MOST_WAITING = 200
# What a refused sender may still send, so that it reads the answer.
_MAX_DRAINED_BYTES = 2**28

_Query = Annotated[str, fastapi.Query(max_length=finder_lib.MAX_QUERY)]
_Languages = Annotated[tuple[str, ...], fastapi.Query()]
_Mode = Literal['dual', 'rerank', 'joint']


def create(finder: finder_lib.Finder, *,
           hosts: Sequence[str] = ('*',)) -> fastapi.FastAPI:
  """Returns the application.

  The page is asked for by the names of `hosts`; others are refused, so that no
  other site can pass as this one.
  """
  app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
  _add_page(app, finder.page())
  _add_pictures(app, finder)
  _add_questions(app, finder)
  app.add_middleware(trustedhost.TrustedHostMiddleware,
                     allowed_hosts=list(hosts))

  @app.exception_handler(404)
  @app.exception_handler(405)
  async def refuse(request: fastapi.Request, error):
    await _body(request, 0)  # Nobody else has read what was sent.
    return await exception_handlers.http_exception_handler(request, error)

  return app


def _add_page(app: fastapi.FastAPI, html: str) -> None:

  @app.get('/')
  def page() -> responses.Response:
    return responses.HTMLResponse(html, headers={'cache-control': 'no-cache'})

  @app.get('/page.{kind}')
  def file(kind: Literal['js', 'css']) -> responses.Response:
    return responses.FileResponse(
        _FOLDER / f'page.{kind}', headers={'cache-control': 'no-cache'})


def _add_pictures(app: fastapi.FastAPI, finder: finder_lib.Finder) -> None:
  index = finder.searcher.index
  large_pictures = pictures_lib.LargePictures(index)

  @app.get('/picture/{key}')
  def picture(key: str) -> responses.Response:
    try:
      content = paths.of(index.thumbnail(_number(index, key))).read_bytes()
    except OSError as error:
      raise fastapi.HTTPException(404) from error
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)

  @app.get('/picture/{key}/large')
  def large(key: str) -> responses.Response:
    content = large_pictures.get(_number(index, key))
    if content is None:
      return picture(key)
    return responses.Response(content, media_type=_TYPE, headers=_KEPT)


def _number(index: index_lib.Index, key: str) -> int:
  """Returns that of a picture, which a key names and never a path.

  Whatever was indexed since a page was opened, no other picture has its key.
  """
  if key not in index.keys:
    raise fastapi.HTTPException(
        404, 'This picture is not in the collection any more: search again.')
  return index.keys[key]


def _add_questions(app: fastapi.FastAPI, finder: finder_lib.Finder) -> None:
  answers = _Answers()

  @app.get('/search')
  async def search(mode: _Mode, query: _Query = '') -> responses.Response:
    return answers.stream(finder.search(query, mode))

  @app.get('/picture/{key}/detail')
  async def show(key: str, query: _Query = '',
                 languages: _Languages = ()) -> responses.Response:
    return answers.stream(finder.show(
        _number(finder.searcher.index, key), query, languages))

  @app.post('/look')
  async def look(request: fastapi.Request,
                 languages: _Languages = ()) -> responses.Response:
    content = await _body(request, pictures_lib.MAX_BYTES)
    try:
      regions = await answers.work(
          pictures_lib.regions, content, finder.searcher.read)
    except pictures_lib.Refused as refused:
      raise fastapi.HTTPException(refused.status, str(refused)) from refused
    return answers.stream(finder.look(regions, languages))


class _Answers:
  """Answers that come part by part, a few parts at a time."""

  def __init__(self):
    # Its own threads: whoever stops the server does not wait for them.
    self._threads = futures.ThreadPoolExecutor(_AT_ONCE)
    self._waiting = 0

  async def work(self, function: Callable[..., Any], *args: Any) -> Any:
    """Returns function(*args), worked on beside others."""
    return await asyncio.get_running_loop().run_in_executor(
        self._threads, function, *args)

  def stream(self, parts: Iterator[finder_lib.Part]) -> responses.Response:
    """Returns one line of JSON for each part; ends where nobody reads it."""
    if self._waiting >= _MOST_WAITING:
      raise fastapi.HTTPException(503, 'Too many ask at once: try again.')
    return responses.StreamingResponse(
        self._lines(parts), media_type='application/x-ndjson',
        headers={'cache-control': 'no-store'})

  async def _lines(self, parts: Iterator[finder_lib.Part]
                   ) -> AsyncIterator[str]:
    self._waiting += 1
    try:
      # No thread is kept while a part is sent: who reads slowly keeps nobody.
      while (part := await self.work(next, parts, None)) is not None:
        yield json.dumps(part) + '\n'
    except errors.UserError as error:  # As of records that have gone.
      logging.warning('%s', error)
      yield json.dumps({'error': str(error)}) + '\n'
    finally:
      self._waiting -= 1


async def _body(request: fastapi.Request, limit: int) -> bytes | None:
  """Returns what was sent, None where it is longer than allowed.

  It is read on and forgotten then: who is still sending reads no answer.
  """
  content, size = bytearray(), 0
  while size <= _MAX_DRAINED_BYTES:
    message = await request.receive()
    part = message.get('body', b'')
    size += len(part)
    if size <= limit:
      content += part
    if not message.get('more_body'):
      break
  return bytes(content) if size <= limit else None
