"""What may reach the page, how much of it, and what a browser may load.

Gradio serves many routes that this page has no use for: files, proxies,
uploads. Only those named here are open.
"""

from collections.abc import Awaitable, Callable, MutableMapping
import json
import re
from typing import Any

from m3p_jax.serve import uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOK = '/look'
# Bytes of a request that is no picture.
_MAX_BYTES = 2**18
# What a refused sender may still send, so that it reads the answer.
_MAX_DRAINED_BYTES = 2**28

_OPEN = {
    'GET': re.compile(
        r'/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json'
        r'|(assets|static|svelte)/[\w./@-]+|picture/\d{1,9}(/large)?'
        r'|gradio_api/(info|queue/data|heartbeat/\w+|startup-events'
        r'|theme\.css|call/\w+/\w+))'),
    'POST': re.compile(
        LOOK + r'|/gradio_api/(queue/join|cancel|reset|call/\w+)/?')}
_OPEN['HEAD'] = _OPEN['GET']

# Gradio starts with scripts inside the page and compiles its templates.
_HEADERS = {
    'content-security-policy':
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin'}


class Guard:
  """ASGI middleware."""

  def __init__(self, app: Callable[..., Awaitable[None]]):
    """Args: `app` is what is guarded."""
    self._app = app

  async def __call__(self, scope: Message, receive: Receive,
                     send: Send) -> None:
    """Hands on what is allowed, and answers the rest."""
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
    elif scope['type'] == 'http':
      await self._http(scope, receive, _with_headers(send))
    # Nothing here speaks through web sockets: they are not answered.

  async def _http(self, scope, receive, send):
    path, pattern = scope['path'], _OPEN.get(scope['method'])
    if not pattern or not pattern.fullmatch(path) or '..' in path:
      await _drain(receive, _MAX_DRAINED_BYTES)
      await _answer(send, 404, 'There is no such page.')
      return
    limit = uploads.MAX_BYTES if path == LOOK else _MAX_BYTES
    body = await _body(receive, limit)
    if body is None:
      await _drain(receive, _MAX_DRAINED_BYTES)
      refused = uploads.too_many_bytes()
      await _answer(send, refused.status, str(refused) if path == LOOK
                    else 'The request is too long.')
      return
    await self._app(scope, _replay(body, receive), send)


async def _body(receive: Receive, limit: int) -> bytes | None:
  """Returns the body of a request, None where it is longer than allowed."""
  parts, size = [], 0
  while True:
    message = await receive()
    part = message.get('body', b'')
    size += len(part)
    if size > limit:
      return None
    parts.append(part)
    if not message.get('more_body'):
      return b''.join(parts)


async def _drain(receive: Receive, limit: int) -> None:
  """Reads what is left of a request and forgets it."""
  while limit > 0:
    message = await receive()
    limit -= len(message.get('body', b''))
    if not message.get('more_body'):
      return


def _replay(body: bytes, receive: Receive) -> Receive:
  """Returns a `receive` that gives the body, then what comes after it."""
  waiting = [{'type': 'http.request', 'body': body, 'more_body': False}]

  async def replay():
    return waiting.pop() if waiting else await receive()

  return replay


def _with_headers(send: Send) -> Send:
  async def add(message):
    if message['type'] == 'http.response.start':
      message['headers'] = [*message.get('headers', ()), *(
          (name.encode(), value.encode())
          for name, value in _HEADERS.items())]
    await send(message)

  return add


async def _answer(send: Send, status: int, message: str) -> None:
  await send({'type': 'http.response.start', 'status': status, 'headers': [
      (b'content-type', b'application/json')]})
  await send({'type': 'http.response.body',
              'body': json.dumps({'error': message}).encode()})
