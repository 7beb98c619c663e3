"""The web page: driven by a browser, by many at once, and by the hostile."""

import asyncio
import concurrent.futures
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

from PIL import Image
import pytest

from input_pipeline import errors
from input_pipeline import sources
from tests import small_search

ROOT = pathlib.Path(__file__).parent.parent
SCREENSHOTS = ROOT / 'build' / 'screenshots'
BROWSER_FLAGS = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
    '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync']
QUERY = '#m3p-query'


def start(workdir, *flags):
  """Returns a server, started as a user starts it, and its address."""
  if not os.environ.get('CI'):
    pytest.importorskip('fastapi')
  process = subprocess.Popen(
      [sys.executable, 'main.py', '--mode=serve', f'--workdir={workdir}',
       '--port=0', *flags], cwd=ROOT, text=True, stdout=subprocess.PIPE,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'})
  line = process.stdout.readline()
  assert 'http://' in line, line
  return process, urllib.parse.urlparse(line.split()[-1])


@pytest.fixture(scope='module')
def server(small_run):
  """Returns (host, port) of the page."""
  process, address = start(small_run)
  assert address.hostname == '127.0.0.1' and not address.query
  yield address.hostname, address.port
  assert process.poll() is None, 'the server died'
  # It ends soon, whatever is still being sent to it.
  with socket.create_connection((address.hostname, address.port)) as tab:
    tab.sendall(b'POST /look HTTP/1.1\r\nhost: localhost\r\n'
                b'content-length: 100\r\n\r\nhalf a picture')
    time.sleep(1)
    process.terminate()
    process.wait(timeout=5)


@pytest.fixture(scope='module')
def browser():
  """Returns Chromium; without it the test is skipped, but not in CI."""
  path = shutil.which('chromium')
  if not path and not os.environ.get('CI'):
    pytest.skip('chromium is not installed (Debian: apt-get install chromium)')
  from playwright import sync_api
  with sync_api.sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
        executable_path=path, args=BROWSER_FLAGS)
    yield chromium
    chromium.close()


@pytest.fixture
def page(server, browser):
  """Returns the opened page; it may ask nobody else, and must not fail."""
  origin = f'http://{server[0]}:{server[1]}/'
  context = browser.new_context(viewport={'width': 1280, 'height': 900})
  page = context.new_page()
  page.set_default_timeout(30_000)
  strangers, failures = [], []
  page.on('request', lambda request: None if request.url.startswith(
      (origin, 'data:', 'blob:')) else strangers.append(request.url))
  page.on('pageerror', lambda error: failures.append(error))
  page.on('response', lambda response: failures.append(response.url)
          if response.status >= 400 and '/look' not in response.url
          else None)
  page.goto(origin)
  page.wait_for_selector('.m3p-header')
  yield page
  assert not strangers and not failures
  context.close()


def ask(page, query):
  """Returns the names of the first five pictures found."""
  page.fill(QUERY, query)
  page.press(QUERY, 'Enter')
  page.wait_for_selector(f'.m3p-line q:text-is("{query}")')
  return page.eval_on_selector_all(
      '.m3p-card', 'cards => cards.slice(0, 5).map(card => card.dataset.id)')


def serious_violations(page):
  """Returns what axe-core finds to be serious or critical."""
  (axe,) = sources.fetch('axe-core').rglob('axe.min.js')
  page.evaluate(axe.read_text())
  found = page.evaluate('axe.run()')['violations']
  return [(one['id'], [node['html'] for node in one['nodes']])
          for one in found if one['impact'] in ('serious', 'critical')]


def request(server, method, path, body=None, headers=None):
  """Returns (status, content); the path goes out as it is."""
  connection = http.client.HTTPConnection(*server, timeout=120)
  connection.request(method, path, body, headers or {})
  response = connection.getresponse()
  result = response.status, response.read()
  connection.close()
  return result


def picture(server):
  """Returns the address of the first picture that is found."""
  _, content = request(server, 'GET', '/search?mode=dual&query=a')
  return '/picture/' + re.search(
      'data-key="([0-9a-f]+)"', json.loads(content)['results'])[1]


def png(width=64, height=64):
  """Returns a PNG file."""
  content = io.BytesIO()
  Image.new('RGB', (width, height), 'teal').save(content, 'PNG')
  return content.getvalue()


def test_a_visit(page):
  assert '1f34e.webp' in ask(page, 'ein roter Apfel')
  assert page.inner_text('.m3p-tag') == 'looks like German'
  assert '1f418.webp' in ask(page, '灰色の象')
  assert page.inner_text('.m3p-tag') == 'looks like Japanese'

  page.click('[data-id="1f418.webp"]')
  page.wait_for_selector('.m3p-captions')
  # A picture of 40 pixels is shown larger, its boxes over all of it.
  page.eval_on_selector('.m3p-large img', '''img => new Promise(done => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 40;
    img.onload = () => done();
    img.src = canvas.toDataURL();
  })''')
  large, boxes = (page.locator(f'.m3p-large {tag}').bounding_box()
                  for tag in ('img', 'svg'))
  assert large['width'] >= 219 and boxes == large
  words = page.locator('.m3p-word figcaption').all_inner_texts()
  assert ''.join(words) == '灰色の象' and len(words) > 1
  assert page.locator('.m3p-word svg rect').count() == 9 * len(words)
  SCREENSHOTS.mkdir(parents=True, exist_ok=True)
  page.screenshot(path=SCREENSHOTS / 'attention.png', full_page=True)
  assert not serious_violations(page)

  page.keyboard.press('Escape')
  page.wait_for_selector('.m3p-detail', state='detached')
  assert page.get_attribute(':focus', 'data-id') == '1f418.webp'
  page.keyboard.press('ArrowRight')
  page.keyboard.press('Enter')
  page.wait_for_selector('.m3p-captions')
  assert page.get_attribute(':focus', 'aria-current') == 'true'
  page.click('.m3p-close')
  page.keyboard.press('/')
  assert page.get_attribute(':focus', 'id') == 'm3p-query'
  page.click('#m3p-mode label:has-text("Re-ranked")')
  page.wait_for_selector('text=first 5 ordered again')
  assert page.locator('.m3p-decided').count() == 5


def test_a_dropped_picture_finds_itself(page, small_run):
  page.set_input_files(
      '#m3p-file', small_run.parent / 'raw' / '1f427.webp')
  page.wait_for_selector('text=Pictures like yours')
  page.wait_for_selector('h3:has-text("German")')
  assert page.get_attribute('.m3p-card', 'data-id') == '1f427.webp'
  assert page.inner_text('h3:has-text("German") + ul li span') == (
      'ein kleiner Pinguin')
  page.screenshot(path=SCREENSHOTS / 'picture.png')

  page.set_input_files('#m3p-file', {
      'name': 'picture.png', 'mimeType': 'image/png', 'buffer': b'no picture'})
  page.wait_for_selector('.m3p-error:has-text("no picture")')
  assert page.is_hidden('.m3p-own')


def test_a_narrow_screen(page):
  page.set_viewport_size({'width': 360, 'height': 740})
  assert '1f697.webp' in ask(page, 'a fast car')
  page.click('[data-id="1f697.webp"]')
  page.wait_for_selector('.m3p-word')
  assert page.evaluate('document.documentElement.scrollWidth') == 360
  assert page.is_visible('.m3p-word')
  assert not serious_violations(page)
  page.screenshot(path=SCREENSHOTS / 'narrow.png')


@pytest.mark.parametrize('query', [
    '🍎', 'تفاحة حمراء', 'קטן', 'word ' * 1000,
    '<img src=x onerror=alert(1)>', '${1+1} {{value}} `x`'])
def test_any_query_is_text(page, query):
  query = query.strip()
  page.fill(QUERY, query)
  page.press(QUERY, 'Enter')
  page.wait_for_selector('.m3p-grid')
  shown = page.inner_text('.m3p-line q')
  assert shown == query or query.startswith(shown.rstrip('…'))
  assert page.eval_on_selector(
      QUERY, 'box => getComputedStyle(box).unicodeBidi') == 'plaintext'


def test_an_empty_query_is_told_what_to_do(page):
  page.fill(QUERY, '   ')
  page.press(QUERY, 'Enter')
  page.wait_for_selector('text=What are you looking for?')
  page.click('.m3p-chip >> nth=0')
  page.wait_for_selector('.m3p-grid')


def test_twenty_visitors_at_once(server):
  def visit(item):
    name, captions = item
    query = urllib.parse.quote(captions[1])
    status, content = request(
        server, 'GET', f'/search?mode=rerank&query={query}')
    assert status == 200, content
    return name, [json.loads(line)['results'] for line in content.splitlines()]

  assert len(small_search.PICTURES) == 20
  with concurrent.futures.ThreadPoolExecutor(20) as pool:
    for name, stages in pool.map(visit, small_search.PICTURES.items()):
      assert all(f'{name}.webp' in html for html in stages)
      assert 'ordered again' in stages[-1] and len(stages) > 1


def test_eight_are_answered_at_once_and_no_more_than_200_wait():
  fastapi = pytest.importorskip('fastapi')
  from m3p_jax.serve import answers as answers_lib
  working, most = [], []

  def parts():
    for _ in range(2):
      working.append(1)
      most.append(len(working))
      time.sleep(0.01)
      working.pop()
      yield {}

  async def visits():
    answers = answers_lib.Answers()

    async def visit():
      return [line async for line in answers.stream(
          parts(), is_long=False).body_iterator]

    waiting = [asyncio.create_task(visit()) for _ in range(200)]
    await asyncio.sleep(0.05)
    with pytest.raises(fastapi.HTTPException, match='try again'):
      answers.stream(parts(), is_long=False)
    assert await asyncio.gather(*waiting) == 200 * [['{}\n', '{}\n']]
    assert await visit()

  # A thread of its own: Playwright has a loop in this one.
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(asyncio.run, visits()).result()
  assert max(most) == 8


def test_what_takes_long_lets_the_short_go_first():
  pytest.importorskip('fastapi')
  from m3p_jax.serve import answers as answers_lib
  released, working, most = threading.Event(), [], []

  def joint():
    yield 'dual'
    for _ in range(2):
      working.append(1)
      most.append(len(working))
      released.wait(60)
      working.pop()
      yield 'joint'

  async def visits():
    answers = answers_lib.Answers()
    waiting = [asyncio.create_task(answers.last(joint(), is_long=True))
               for _ in range(8)]
    while not most:
      await asyncio.sleep(0.01)
    assert most == [1]  # The others wait for the one place.
    assert await answers.last(iter(['dual']), is_long=False) == 'dual'
    released.set()
    assert await asyncio.gather(*waiting) == 8 * ['joint']

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(asyncio.run, visits()).result()
  assert max(most) == 1 and len(most) == 16


def test_a_long_part_begins_when_no_short_one_is_worked_on(monkeypatch):
  pytest.importorskip('fastapi')
  from m3p_jax.serve import answers as answers_lib
  monkeypatch.setattr(answers_lib, '_PATIENCE', 600.0)
  released, done = threading.Event(), []

  def short():
    released.wait(60)
    done.append('short')

  async def visits():
    answers = answers_lib.Answers()
    waiting = [asyncio.create_task(answers.work(short, is_long=False))]
    await asyncio.sleep(0)
    waiting += [asyncio.create_task(answers.work(done.append, 'long'))
                for _ in range(8)]
    await asyncio.sleep(0.05)
    assert not done
    released.set()
    await asyncio.gather(*waiting)

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(asyncio.run, visits()).result()
  assert done == ['short'] + 8 * ['long']


def test_a_question_that_takes_long_keeps_nobody_who_stops():
  pytest.importorskip('fastapi')
  from m3p_jax.serve import answers as answers_lib
  released = threading.Event()

  def parts():
    yield {'results': 'dual'}
    released.wait(60)
    raise errors.UserError('the records have gone')

  async def stop():
    lines = answers_lib.Answers().stream(
        parts(), is_long=True).body_iterator
    assert await anext(lines) == '{"results": "dual"}\n'
    waiting = asyncio.create_task(anext(lines))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
      await waiting

  async def fail():
    released.set()
    return [line async for line in answers_lib.Answers().stream(
        parts(), is_long=True).body_iterator]

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    start = time.monotonic()
    pool.submit(asyncio.run, stop()).result()
    assert time.monotonic() - start < 30
    assert json.loads(pool.submit(asyncio.run, fail()).result()[-1]) == {
        'error': 'the records have gone'}


def test_pictures_are_small_in_the_grid_and_large_in_the_panel(server):
  sizes = {}
  for name in ('', '/large'):
    status, content = request(server, 'GET', picture(server) + name)
    assert status == 200
    sizes[name] = max(Image.open(io.BytesIO(content)).size)
  assert sizes == {'': 160, '/large': 256}


def test_a_page_of_before_is_told_that_its_picture_has_gone(server):
  for path in ('/picture/0', '/picture/0/large', '/picture/0/detail'):
    status, content = request(server, 'GET', path)
    assert status == 404 and 'search again' in json.loads(content)['detail']


@pytest.mark.parametrize('path', [
    '/picture/../../main.py', '/picture/%2e%2e/%2e%2e/main.py',
    '/picture/99', '/picture/-1', '/picture/99/large', '/picture/99/detail',
    f'/picture/{"9" * 5000}', '/picture/0/large/../../../main.py',
    '/page.py', '/page.html.j2', '/page.js/../app.py', '/app.py', '/etc/passwd',
    '/docs', '/openapi.json', '/search?order=x&query=a',
    '/search?mode=x&query=a',
    f'/search?mode=dual&query={"a" * 5001}'])
def test_nothing_else_is_served(server, path):
  status, content = request(server, 'GET', path)
  assert status in (404, 422), content
  assert b'root:' not in content and b'import' not in content


def test_files_that_are_no_pictures_are_refused(server):
  bomb = bytearray(png())
  bomb[16:24] = struct.pack('>II', 60_000, 60_000)
  bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
  svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>'
  for content, status, message in (
      (bytes(bomb), 413, 'million pixels'),
      (svg, 415, 'SVG'),
      (b'This is text.', 415, 'no picture'),
      (png()[:-30], 415, 'damaged'),
      (b'', 415, 'empty'),
      (bytes(100 * 2**20), 413, 'larger than 12 MB')):
    found, answer = request(server, 'POST', '/look', content)
    assert (found, message in json.loads(answer)['detail']) == (status, True)
  status, answer = request(server, 'POST', '/look?languages=de', png())
  last = json.loads(answer.splitlines()[-1])['detail']
  assert status == 200 and 'German' in last and 'English' not in last


def test_the_api_answers_as_the_page_does(server, small_run):
  status, content = request(
      server, 'GET', '/api/search?query=ein%20roter%20Apfel&k=3')
  found = json.loads(content)
  assert status == 200 and found['num_pictures'] == 20
  scores = [one['score'] for one in found['pictures']]
  assert scores == sorted(scores, reverse=True) and len(scores) == 3
  first = next(one for one in found['pictures']
               if one['image_id'] == '1f34e.webp')
  assert first['caption'] == 'a red apple' and first['match'] is None
  assert request(server, 'GET', first['thumbnail'])[0] == 200
  _, page = request(
      server, 'GET', '/search?mode=dual&query=ein%20roter%20Apfel')
  assert re.findall('data-key="([0-9a-f]+)"', json.loads(page)['results'])[
      :3] == [one['key'] for one in found['pictures']]
  _, content = request(
      server, 'GET', '/api/search?query=ein%20roter%20Apfel&mode=rerank&k=5')
  assert all(0 < one['match'] < 1 for one in json.loads(content)['pictures'])

  # A picture is named by its key, or sent.
  apple = (small_run.parent / 'raw' / '1f34e.webp').read_bytes()
  key = f'key={first["key"]}'
  for path, check in (
      ('/api/similar?k=2&', lambda answer: answer['pictures'][0]['image_id']
       == '1f34e.webp'),
      ('/api/describe?languages=de&k=1&', lambda answer: answer['captions'][
          'de'][0]['text'] == 'ein roter Apfel')):
    for method, address, sent in (('GET', path + key, None),
                                  ('POST', path, apple)):
      status, content = request(server, method, address, sent)
      assert status == 200 and check(json.loads(content)), (address, content)
  status, content = request(server, 'GET', f'/api/describe?write=true&{key}')
  assert status == 400 and b'cannot write' in content


@pytest.mark.parametrize(('path', 'status', 'message'), [
    ('search?query=a&mode=x', 422, 'dual'), ('search', 422, 'required'),
    ('search?query=%20', 400, 'no words'), ('search?query=a&k=0', 422, 'k'),
    ('search?query=a&k=1001', 422, '1000'),
    ('similar?key=0', 404, 'search again'),
    ('describe?key=0', 404, 'search again')])
def test_the_api_says_what_is_wrong(server, path, status, message):
  found, content = request(server, 'GET', f'/api/{path}')
  assert found == status and message in content.decode()


def test_the_api_takes_pictures_alone(server):
  status, content = request(server, 'POST', '/api/similar', b'no picture')
  assert status == 415 and 'no picture' in json.loads(content)['detail']


def test_the_api_has_a_page_that_loads_nothing_from_elsewhere(page, server):
  page.goto(f'http://{server[0]}:{server[1]}/api/docs')
  page.wait_for_selector('.opblock')
  assert page.locator('.opblock').count() == 5
  page.click('.opblock >> nth=0')
  page.wait_for_selector('text=num_pictures')


def test_other_machines_need_the_token(small_run):
  process, address = start(small_run, '--host=0.0.0.0')
  server = '127.0.0.1', address.port
  token = address.query.removeprefix('token=')
  assert len(token) >= 32
  try:
    paths = ('/', '/page.js', '/picture/0', '/search?mode=dual&query=a',
             '/api/search?query=a', '/api/docs/',
             '/api/openapi.json')
    for path in paths:
      for headers in ({}, {'authorization': f'Bearer {token}x'},
                      {'cookie': 'm3p=x'}):
        status, content = request(server, 'GET', path, headers=headers)
        assert status == 401 and b'?token=' in content, path
    assert request(server, 'POST', '/look', bytes(13 * 2**20))[0] == 401
    connection = http.client.HTTPConnection(*server, timeout=60)
    connection.request('GET', f'/?token={token}&query=a')
    with connection.getresponse() as response:
      assert (response.status, response.headers['location']) == (
          303, '/?query=a')
      cookie = response.headers['set-cookie']
    connection.close()
    assert 'HttpOnly' in cookie and 'SameSite=strict' in cookie
    headers = {'cookie': cookie.partition(';')[0]}
    for path in paths[:2]:
      assert request(server, 'GET', path, headers=headers)[0] == 200
    assert request(server, 'GET', f'/api/search?query=a&token={token}'
                   )[0] == 200
    assert request(server, 'GET', '/api/search?query=a', headers={
        'authorization': f'Bearer {token}'})[0] == 200
  finally:
    process.terminate()
    process.wait(timeout=5)


def test_requests_at_the_limits_are_answered(server):
  limit = 12 * 2**20  # What follows a PNG's last chunk is not read.
  content = png()
  for size, status in ((limit, 200), (limit + 1, 413)):
    assert request(server, 'POST', '/look', content.ljust(size, b'\0')
                   )[0] == status
  query = urllib.parse.quote(5_000 * '🍎')
  for path in (f'/search?mode=dual&query={query}',
               f'/api/search?query={query}'):
    assert request(server, 'GET', path)[0] == 200
  assert request(server, 'GET', f'/api/search?query={query}%20')[0] == 422


@pytest.mark.parametrize('method, path, message', [
    ('GET', 'search?query=a&count=3', 'count=3: no such parameter; allowed: '
     'query, mode, k, offset, folder, since, until, order, fold'),
    ('GET', 'search?query=a&mode=best', "mode=best: Input should be 'dual', "
     "'rerank' or 'joint'"),
    ('GET', 'search', 'query: Field required'),
    ('POST', 'describe?language=de', 'language=de: no such parameter; allowed: '
     'languages, k, write')])
def test_the_api_says_in_a_line_what_it_does_not_take(
    server, method, path, message):
  status, content = request(server, method, f'/api/{path}', bytes(2**24))
  assert (status, json.loads(content)['detail']) == (422, message)
  described = json.loads(request(server, 'GET', '/api/openapi.json')[1])
  (answer,) = described['paths'][f'/api/{path.partition("?")[0]}'][
      method.lower()]['responses']['422']['content'].values()
  assert answer['schema']['$ref'].endswith('/Wrong')


def test_whoever_asks_for_what_is_not_here_is_answered(server):
  for path, status in (('/upload', 404), ('/search', 405), ('/', 405)):
    assert request(server, 'POST', path, bytes(100 * 2**20))[0] == status
  assert request(server, 'GET', '/', headers={'host': 'evil.example'})[0] == 400


@pytest.mark.parametrize('path', [
    '/', '/page.js', '', '/search?mode=dual', '/nowhere'])
def test_a_browser_may_load_nothing_else_and_run_nothing_inside(server, path):
  path = path or picture(server)
  connection = http.client.HTTPConnection(*server, timeout=60)
  connection.request('GET', path)
  with connection.getresponse() as response:
    policy = response.headers['content-security-policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    assert response.headers['x-content-type-options'] == 'nosniff'
  connection.close()
