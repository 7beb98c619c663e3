"""The page's answers as JSON, for programs: `/api/…` and its own page.

What is asked and found is the finder's, as it is for the page.
"""

from collections.abc import Callable, Sequence
import os
from typing import Annotated, Literal

import fastapi
from fastapi import exceptions
from fastapi import responses
import pydantic
import swagger_ui_bundle

from m3p_jax import batch as batch_lib
from m3p_jax.search import rankings
from m3p_jax.serve import answers as answers_lib
from m3p_jax.serve import finder as finder_lib

PREFIX = '/api'
# The page of the API may run no script of its own text.
_HTML = '''<!doctype html>
<html lang="en"><meta charset="utf-8"><title>m3p_jax API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="swagger-ui.css">
<div id="api"></div><script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script></html>'''
_START = ("SwaggerUIBundle({url: '../openapi.json', dom_id: '#api', "
          'validatorUrl: null})')

Mode = Literal['dual', 'rerank', 'joint']
Query = Annotated[str, fastapi.Query(max_length=finder_lib.MAX_QUERY)]
Languages = Annotated[tuple[str, ...], fastapi.Query(
    description='codes of languages, as en and de')]
_Count = Annotated[int, fastapi.Query(ge=1, le=finder_lib.DEEPEST)]
_Write = Annotated[bool, fastapi.Query(
    description="the model's own words in place of the collection's captions")]
_Day = Annotated[str, fastapi.Query(description='as 2024-05-31')]
_Key = Annotated[str, fastapi.Query(
    description='of a picture of the collection')]
# A picture of one's own is the whole body of a request.
_BODY = {'requestBody': {'required': True, 'content': {
    'image/*': {'schema': {'type': 'string', 'format': 'binary'}}}}}


def _wanted(
    k: _Count = 10, offset: Annotated[int, fastapi.Query(
        ge=0, lt=finder_lib.DEEPEST, description='of what came before')] = 0,
    folder: Annotated[str, fastapi.Query(
        description='with those below it')] = '',
    since: _Day = '', until: _Day = '',
    order: Literal[rankings.ORDERS] = 'relevance',  # type: ignore[valid-type]
    fold: Annotated[bool, fastapi.Query(
        description='leave near duplicates out')] = True) -> rankings.Wanted:
  return rankings.Wanted(k, offset, folder, since, until, order, fold)


Wanted = Annotated[rankings.Wanted, fastapi.Depends(_wanted)]


class Picture(pydantic.BaseModel):
  """A picture found."""
  key: str = pydantic.Field(
      description='its name and content, as /picture/KEY has it')
  image_id: str
  path: str = pydantic.Field(
      description='of its file, or of its small copy where that has gone')
  caption: str
  score: float = pydantic.Field(description='what orders the pictures')
  cosine: float
  match: float | None = pydantic.Field(
      description='probability; null where the joint encoder did not look')
  date: str = pydantic.Field(
      description="of the camera, else of the file; '' where it is not known")
  thumbnail: str = pydantic.Field(description='address of its small copy')
  similar: list[str] = pydantic.Field(
      description='keys of near duplicates that were folded into it')


class Found(pydantic.BaseModel):
  """Pictures, best first."""
  num_pictures: int = pydantic.Field(description='of the collection')
  pictures: list[Picture]
  next_offset: int | None = pydantic.Field(
      description='where more of them begin; null where there are none')


class Caption(pydantic.BaseModel):
  """A caption of the collection, and its cosine with the picture."""
  text: str
  score: float


class Described(pydantic.BaseModel):
  """Captions that fit a picture, by language, best first."""
  captions: dict[str, list[Caption]]


class Wrong(pydantic.BaseModel):
  """What cannot be answered, and why."""
  detail: str


def add(app: fastapi.FastAPI, get: Callable[[], finder_lib.Finder],
        answers: answers_lib.Answers) -> None:
  """Adds the API and its page to the application, see `app.create`."""
  router = fastapi.APIRouter(
      prefix=PREFIX, dependencies=[fastapi.Depends(_refuse_unknown)],
      responses={422: {'model': Wrong}})
  _add_search(router, get, answers)
  _add_describe(router, get, answers)
  app.include_router(router)
  _add_page(app)


async def _refuse_unknown(request: fastapi.Request) -> None:
  """Refuses parameters that nothing reads: a mistyped one is no default."""
  described = request.app.openapi()['paths'][request.scope['route'].path]
  known = [one['name'] for one in
           described[request.method.lower()].get('parameters', ())]
  for name, value in request.query_params.items():
    if name not in (*known, 'token'):
      raise exceptions.RequestValidationError([{
          'loc': ('query', name), 'input': value,
          'msg': f'no such parameter; allowed: {", ".join(known)}'}])


def _add_search(router: fastapi.APIRouter,
                get: Callable[[], finder_lib.Finder],
                answers: answers_lib.Answers) -> None:

  def found(finder: finder_lib.Finder, ranking: rankings.Ranking,
            wanted: rankings.Wanted) -> Found:
    cards, has_more = finder.cards(ranking, wanted)
    return Found(
        num_pictures=len(finder.searcher.index.pictures),
        next_offset=wanted.offset + wanted.k if has_more else None,
        pictures=[Picture(
            key=one.key, date=one.date, similar=one.similar,
            **one.result._asdict() | {'thumbnail': f'/{one.address}'})
                  for one in cards])

  @router.get('/search')
  async def search(query: Query, wanted: Wanted,
                   mode: Mode = 'dual') -> Found:
    """Pictures that fit words in any language."""
    finder, asked = get(), finder_lib.Asked(query, mode=mode)
    return found(finder, await answers.last(
        finder.rankings(asked), is_long=asked.is_long), wanted)

  @router.get('/similar')
  async def similar(key: _Key, wanted: Wanted) -> Found:
    """Pictures like one of the collection."""
    finder = get()
    return found(finder, await answers.work(
        finder.like, key, is_long=False), wanted)

  @router.post('/similar', openapi_extra=_BODY)
  async def similar_to_own(request: fastapi.Request, wanted: Wanted) -> Found:
    """Pictures like the one that is sent; nothing of it is kept."""
    finder = get()
    return found(finder, await answers.work(
        finder.like, await answers.picture(request, finder)), wanted)


def _add_describe(router: fastapi.APIRouter,
                  get: Callable[[], finder_lib.Finder],
                  answers: answers_lib.Answers) -> None:

  async def described(
      finder: finder_lib.Finder, picture: str | batch_lib.Regions,
      languages: Sequence[str], k: int, write: bool) -> Described:
    found = await answers.work(finder.describe, picture, languages, k, write)
    return Described(captions={
        code: [Caption(**one._asdict()) for one in captions]
        for code, captions in found.items()})

  @router.get('/describe')
  async def describe(key: _Key, languages: Languages = (),
                     k: _Count = 3, write: _Write = False) -> Described:
    """Captions that fit a picture of the collection."""
    return await described(get(), key, languages, k, write)

  @router.post('/describe', openapi_extra=_BODY)
  async def describe_own(request: fastapi.Request, languages: Languages = (),
                         k: _Count = 3, write: _Write = False) -> Described:
    """Captions that fit the picture that is sent."""
    finder = get()
    return await described(
        finder, await answers.picture(request, finder), languages, k, write)


def _add_page(app: fastapi.FastAPI) -> None:

  @app.get(f'{PREFIX}/docs', include_in_schema=False)
  def redirect() -> responses.Response:
    return responses.RedirectResponse('docs/')

  @app.get(f'{PREFIX}/docs/', include_in_schema=False)
  def page() -> responses.Response:
    return responses.HTMLResponse(_HTML)

  @app.get(f'{PREFIX}/docs/start.js', include_in_schema=False)
  def start() -> responses.Response:
    return responses.Response(_START, media_type='text/javascript')

  @app.get(f'{PREFIX}/docs/{{name}}', include_in_schema=False)
  def file(name: Literal['swagger-ui.css', 'swagger-ui-bundle.js']
           ) -> responses.Response:
    return responses.FileResponse(
        os.path.join(swagger_ui_bundle.swagger_ui_path, name))
