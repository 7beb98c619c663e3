"""Google's storage on loopback, for the clients that a run reads and writes by.

TensorFlow's client has no setting for another address, and asks for TLS: it is
sent here by its proxy's variables, and shown a certificate of our own. What it
says and hears is what it says to Google.
"""

from collections.abc import Iterator
import contextlib
import functools
import http
from http import server
import logging
import pathlib
import ssl
import threading
import urllib.parse

from gcp_storage_emulator import server as emulator
import trustme

BUCKET = 'lab'
# What is not there is no error: clients ask before they write.
logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)


class _Handler(emulator.RequestHandler):
  """The emulator's handler, which is also the proxy that leads to it."""
  protocol_version = 'HTTP/1.1'  # Clients wait for its '100 Continue'.
  lock = threading.Lock()
  tls: ssl.SSLContext
  asked: list[int]  # Bytes of each request for a part.

  def do_CONNECT(self) -> None:
    self.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n')
    self.request = self.tls.wrap_socket(self.connection, server_side=True)
    self.setup()

  def handle_one_request(self) -> None:
    with contextlib.suppress(OSError):  # The client has gone.
      super().handle_one_request()

  def parse_request(self) -> bool:
    is_whole = super().parse_request()
    if is_whole and (asked := self.headers.get('Range')):
      first, _, last = asked.removeprefix('bytes=').partition('-')
      self.asked.append(int(last) + 1 - int(first))
    if is_whole and '://' in self.path:  # As a proxy is asked.
      url = urllib.parse.urlsplit(self.path)
      self.path = f'{url.path}?{url.query}'
    if is_whole and self.headers.get('Transfer-Encoding') == 'chunked':
      del self.headers['Content-Length']  # TensorFlow sends both.
    return is_whole


class _Request(emulator.Request):
  """A request whose content may be empty."""

  @property
  def data(self):
    return super().data or b''


def _by_generation(handle):
  """Returns the handler with Google's conditions on an object's generation.

  Checkpoints are written on the condition that no one else has written since.
  """

  def handle_if(request, response, storage, *args, **kwargs):
    name = request.params.get('object_id') or request.query.get('name', [''])[0]
    stored = storage.objects.get(BUCKET, {}).get(name, {})
    generation = stored.get('generation', '0')  # 0 = there is none.
    if request.query.get('ifGenerationMatch', [generation]) != [generation]:
      response.status = http.HTTPStatus.PRECONDITION_FAILED
    elif request.query.get('ifGenerationNotMatch') == [generation]:
      response.status = http.HTTPStatus.NOT_MODIFIED
    else:
      if stored:
        response['x-goog-generation'] = generation
      handle(request, response, storage, *args, **kwargs)

  return handle_if


emulator.Request = _Request
# Names that end with a slash stand for folders.
emulator.HANDLERS = tuple(
    (pattern.replace('.*[^/]+', '.+'),
     {method: _by_generation(handle) for method, handle in handlers.items()})
    for pattern, handlers in emulator.HANDLERS)


def _locked(name: str):
  method = getattr(emulator.RequestHandler, name)

  def handle(self):
    with self.lock:  # The emulator's store knows no threads.
      method(self)

  return handle


for _name in ('do_GET', 'do_POST', 'do_PUT', 'do_DELETE', 'do_PATCH'):
  setattr(_Handler, _name, _locked(_name))


@contextlib.contextmanager
def run(folder: pathlib.Path) -> Iterator[tuple[dict[str, str], list[int]]]:
  """Gives the environment in which gs://lab is an empty bucket.

  Beside it a list that grows: of each request for a part of a file, its bytes.
  """
  authority = trustme.CA()
  certificates = folder / 'authority.pem'
  authority.cert_pem.write_to_path(certificates)
  tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  authority.issue_cert('www.googleapis.com', 'storage.googleapis.com',
                       ).configure_cert(tls)
  storage = emulator.Storage(use_memory_fs=True)
  # It would write down all that it holds after every request.
  storage._write_config_to_file = lambda: None
  emulator.buckets.create_bucket(BUCKET, storage)
  asked: list[int] = []
  handler = type('Handler', (_Handler,), {'tls': tls, 'asked': asked})
  with server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(handler, storage)) as proxy:
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{proxy.server_port}'
    yield {'https_proxy': url, 'http_proxy': url, 'no_proxy': '127.0.0.1',
           'CURL_CA_BUNDLE': str(certificates),
           'TENSORSTORE_CA_BUNDLE': str(certificates),
           'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none', 'NO_GCE_CHECK': 'true',
           'STORAGE_EMULATOR_HOST': url}, asked
    proxy.shutdown()
