"""Lets in who has the token, and nobody else."""

import hashlib
import hmac
import re
import secrets
from typing import Any

from fastapi import requests
from fastapi import responses

from input_pipeline import errors
from m3p_jax.serve import answers

# What browsers open; the rest is asked for by these, or by programs.
_PAGES = ('/', '/api/docs', '/api/docs/')
_SECONDS = 30 * 24 * 3600  # That a browser remembers it.
_REFUSED = ('This collection is opened with the whole address that its server '
            'printed, ?token=… included.')


def make(token: str, *, is_needed: bool) -> str:
  """Returns the token to ask for: that of --token, else a new one if needed.

  Raises:
    UserError: one that others could guess, or that no address can hold.
  """
  if not token:
    return secrets.token_urlsafe(24) if is_needed else ''
  if not re.fullmatch(r'[A-Za-z0-9_-]{16,200}', token):
    raise errors.UserError(
        f'--token has {len(token)} characters; allowed: 16 to 200 letters, '
        'digits, - and _')
  return token


class Access:
  """ASGI application around another one.

  The token comes as `?token=`, as `Authorization: Bearer`, or as the cookie
  that the first visit of the page leaves.
  """

  def __init__(self, app: Any, token: str):
    self._app, self._token = app, token
    # Cookies belong to a host: servers at two ports of it have two.
    self._cookie = 'm3p_' + hashlib.sha256(token.encode()).hexdigest()[:8]

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    request = requests.Request(scope, receive)
    asked = request.query_params.get('token', '')
    bearer = request.headers.get('authorization', '').removeprefix('Bearer ')
    given = (asked, bearer, request.cookies.get(self._cookie, ''))
    if not any(hmac.compare_digest(one.encode(), self._token.encode())
               for one in given):
      await answers.body(request, 0)  # Nobody else reads what is sent.
      response: Any = responses.JSONResponse(
          {'detail': _REFUSED}, 401, {'www-authenticate': 'Bearer'})
    elif asked and request.url.path in _PAGES:
      # Out of the address, which is shown and remembered.
      rest = request.url.remove_query_params('token').query
      response = responses.RedirectResponse(
          request.url.path + (rest and f'?{rest}'), 303)
      response.set_cookie(
          self._cookie, self._token, max_age=_SECONDS, httponly=True,
          samesite='strict')
    else:
      response = self._app
    await response(scope, receive, send)
