"""The page and its pictures as one ASGI application."""

from collections.abc import Sequence
import pathlib

import fastapi
from fastapi import concurrency
from fastapi import responses
from fastapi.middleware import trustedhost
import gradio

from m3p_jax.searching import index as index_lib
from m3p_jax.serve import finder as finder_lib
from m3p_jax.serve import guard
from m3p_jax.serve import page
from m3p_jax.serve import renditions
from m3p_jax.serve import uploads as uploads_lib

# Of all pictures that are served.
_TYPE = 'image/webp'
_HEADERS = {'cache-control': 'private, max-age=86400'}


def create(finder: finder_lib.Finder, *,
           hosts: Sequence[str] = ('*',)) -> fastapi.FastAPI:
  """Returns the application.

  Args:
    finder: answers the visitors.
    hosts: names that the page may be asked for by; others are refused, so
      that no other site can pass as this one.
  """
  app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
  _add_routes(app, finder.searcher.index, finder.uploads)
  gradio.mount_gradio_app(
      app, page.build(finder), '/', allowed_paths=[], show_error=False,
      max_file_size=0, ssr_mode=False, mcp_server=False, run_history=False,
      enable_monitoring=False, footer_links=[], **page.looks())
  app.add_middleware(guard.Guard)
  app.add_middleware(trustedhost.TrustedHostMiddleware,
                     allowed_hosts=list(hosts))
  return app


def _add_routes(app: fastapi.FastAPI, index: index_lib.Index,
                uploads: uploads_lib.Uploads) -> None:
  large_pictures = renditions.Renditions(index)

  # A number, never a path, names a picture: nothing else can be asked for.
  @app.get('/picture/{number}')
  def picture(number: int) -> responses.Response:
    try:
      content = pathlib.Path(index.thumbnails[number]).read_bytes()
    except (IndexError, OSError) as error:
      raise fastapi.HTTPException(404) from error
    return responses.Response(content, media_type=_TYPE, headers=_HEADERS)

  @app.get('/picture/{number}/large')
  def large(number: int) -> responses.Response:
    content = (large_pictures.get(number)
               if number < len(index.thumbnails) else None)
    if content is None:
      return picture(number)
    return responses.Response(content, media_type=_TYPE, headers=_HEADERS)

  @app.post(guard.LOOK)
  async def look(request: fastapi.Request) -> responses.Response:
    content = await request.body()
    try:
      name = await concurrency.run_in_threadpool(uploads.add, content)
    except uploads_lib.Refused as refused:
      return responses.JSONResponse({'error': str(refused)}, refused.status)
    return responses.JSONResponse({'name': name})
