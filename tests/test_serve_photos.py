"""The page of somebody's own pictures, which have names and no captions."""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse

import numpy as np
from PIL import Image
import pytest

from m3p_jax import search
from m3p_jax.recipes import photos
from m3p_jax.serve import finder
from tests import test_serve

browser = test_serve.browser
request = test_serve.request
TAKEN = '2019:06:15 12:00:00'


def draw(path, seed, exif):
  """Writes a picture of coloured squares."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels_HW3 = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
  Image.fromarray(pixels_HW3).resize((96, 96), 0).save(
      path, quality=95, exif=exif)


@pytest.fixture(scope='module')
def run(small_run, tmp_path_factory) -> pathlib.Path:
  """Returns the workdir of `make photos` over thirty pictures."""
  folder = tmp_path_factory.mktemp('photos')
  exif = Image.Exif()
  exif.get_ifd(0x8769)[0x9003] = TAKEN
  for number in range(29):
    draw(folder / 'mine' / ('beach', 'home')[number % 2] /
         f'IMG_{number}.jpg', number, exif if number % 2 else Image.Exif())
  Image.open(folder / 'mine' / 'beach' / 'IMG_0.jpg').save(
      folder / 'mine' / 'a copy.png')
  (folder / 'mine' / 'broken.jpg').write_bytes(b'no picture')
  (folder / 'mine' / 'film.mov').touch()
  photos.Photos(folder / 'run', folder / 'data', folder / 'mine',
                weights=small_run).run()
  return folder / 'run'


@pytest.fixture(scope='module')
def server(run):
  process, address = test_serve.start(run)
  yield address.hostname, address.port
  process.terminate()
  process.wait(timeout=5)


@pytest.fixture
def page(server, browser):
  context = browser.new_context(viewport={'width': 1280, 'height': 900})
  page = context.new_page()
  failures = []
  page.on('pageerror', lambda error: failures.append(error))
  page.on('console', lambda message: failures.append(message.text)
          if message.type == 'error' else None)
  page.goto(f'http://{server[0]}:{server[1]}/')
  yield page
  assert not failures
  context.close()


def found(server, **asked):
  status, content = request(
      server, 'GET', f'/api/search?{urllib.parse.urlencode(asked)}')
  assert status == 200, content
  return json.loads(content)


def test_a_visit(page, run):
  assert page.locator('#m3p-languages').count() == 0
  page.click('summary:has-text("not in here")')
  assert page.locator('footer li').all_inner_texts() == [
      '1 of another ending: .mov 1', '1 unreadable']
  test_serve.ask(page, 'ein Bild')
  # The copy is folded; scrolling shows what is left, and no more than that.
  page.wait_for_selector('.m3p-rank:text-is("24")')
  page.locator('.m3p-more').scroll_into_view_if_needed()
  page.wait_for_selector('.m3p-rank:text-is("29")')
  assert page.locator('.m3p-card').count() == 29
  assert page.locator('.m3p-more').count() == 0
  assert page.locator('.m3p-tag').count() == 0  # It knows no language here.
  assert page.inner_text('.m3p-name >> nth=0').endswith(('.jpg', '.png'))

  # So it does of pictures like one's own.
  page.set_input_files('#m3p-file', run.parent / 'mine' / 'home' / 'IMG_1.jpg')
  page.wait_for_selector('h2:text-is("Pictures like yours")')
  assert page.inner_text('.m3p-name >> nth=0') == 'IMG_1.jpg'
  page.locator('.m3p-more').scroll_into_view_if_needed()
  page.wait_for_selector('.m3p-rank:text-is("29")')
  assert page.locator('.m3p-card').count() == 29
  assert page.inner_text('h2 >> nth=0') == 'Pictures like yours'
  test_serve.ask(page, 'ein Bild')

  page.click('.m3p-card:has-text("+1 similar")')
  page.wait_for_selector('.m3p-alike img')
  assert not test_serve.serious_violations(page)
  path = page.inner_text('.m3p-id code')
  assert path.startswith(str(run.parent / 'mine'))
  with page.expect_download() as download:
    page.click('text=Download')
  assert pathlib.Path(download.value.path()).read_bytes() == (
      pathlib.Path(path).read_bytes())
  page.context.grant_permissions(['clipboard-read', 'clipboard-write'])
  page.click('text=Copy path')
  page.wait_for_selector('text=Copied')
  assert page.evaluate('navigator.clipboard.readText()') == path
  page.click('text=Find similar')
  page.wait_for_selector('h2:has-text("Pictures like")')
  assert page.inner_text('.m3p-card >> nth=0 >> .m3p-name') == (
      pathlib.Path(path).name)

  page.click('summary:has-text("Folder, date and order")')
  page.select_option('[name=folder]', label='home')
  page.locator('.m3p-card').nth(14).wait_for(state='detached')
  assert page.locator('.m3p-card').count() == 14
  assert page.locator('.m3p-card time').first.inner_text() == '2019-06-15'
  page.reload()  # The address has all that was chosen.
  assert page.locator('.m3p-card').count() == 14
  page.set_viewport_size({'width': 360, 'height': 740})
  assert page.evaluate('document.documentElement.scrollWidth') == 360
  assert not test_serve.serious_violations(page)


def test_a_browser_without_script_searches_and_sees_more(server, browser):
  context = browser.new_context(java_script_enabled=False)
  page = context.new_page()
  page.goto(f'http://{server[0]}:{server[1]}/')
  page.fill(test_serve.QUERY, 'ein Bild')
  page.press(test_serve.QUERY, 'Enter')
  page.click('.m3p-more')
  page.wait_for_selector('.m3p-rank:text-is("25")')
  assert page.locator('.m3p-card').count() == 5
  page.click('.m3p-card >> nth=0')
  page.wait_for_url('**/large')
  context.close()


def test_pages_filters_and_copies_of_the_api(server):
  first = found(server, query='a', k=20)
  second = found(server, query='a', k=20, offset=first['next_offset'])
  assert second['next_offset'] is None
  keys = [one['key'] for one in first['pictures'] + second['pictures']]
  assert len(set(keys)) == len(keys) == 29
  copied = [one for one in first['pictures'] + second['pictures']
            if one['similar']]
  assert len(copied) == 1 and copied[0]['similar'][0] not in keys
  assert len(found(server, query='a', k=50, fold=False)['pictures']) == 30
  taken = found(server, query='a', k=50, since='2019-06-15',
                until='2019-06-15')['pictures']
  assert {one['date'] for one in taken} == {'2019-06-15T12:00:00'}
  assert len(taken) == 14
  status, content = request(
      server, 'GET', '/api/search?query=a&folder=nowhere')
  assert status == 400 and b'folder is' in content


def test_a_picture_of_which_nothing_is_said_opens_without_its_record(
    run, monkeypatch):
  page = finder.Finder(search.load(run))
  monkeypatch.setattr(page.searcher, 'regions_of', None)  # Nobody asks.
  (part,) = page.show(page.searcher.index.key(0), '', ('en',))
  assert 'Download' in part['detail'] and 'm3p-busy' not in part['detail']


def test_a_file_that_was_changed_is_not_handed_out(server, run):
  one = found(server, query='a', folder='pictures/beach')['pictures'][-1]
  address = f'/picture/{one["key"]}/file'
  path = pathlib.Path(one['path'])
  content = path.read_bytes()
  assert request(server, 'GET', address) == (200, content)
  path.write_bytes(content + b' ')
  assert request(server, 'GET', address)[0] == 404
  path.unlink()
  path.symlink_to('/etc/passwd')
  assert request(server, 'GET', address)[0] == 404
  path.unlink()
  path.write_bytes(content)
  os.utime(path)


def test_a_page_that_is_open_shows_what_is_added(server, run, small_run):
  folder, before = run.parent / 'mine', found(server, query='a', k=50)
  watch = subprocess.Popen(
      [sys.executable, '-m', 'm3p_jax.recipes.photos', '--watch',
       f'--pictures={folder}', f'--workdir={run}', f'--weights={small_run}',
       f'--data_dir={run.parent / "data"}', '--query=a'], cwd=test_serve.ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'},
      text=True, stdout=subprocess.PIPE)
  try:
    while not watch.stdout.readline().startswith('Watching'):
      assert watch.poll() is None
    draw(folder / 'home' / 'new.jpg', 99, Image.Exif())
    (folder / 'beach' / 'IMG_4.jpg').unlink()
    until = time.monotonic() + 180  # A minute, on a machine with time for it.
    names = set()
    while not names or 'pictures/home/new.jpg' not in names:
      assert time.monotonic() < until
      time.sleep(1)
      now = found(server, query='a', k=50)
      names = {one['image_id'] for one in now['pictures']}
  finally:
    watch.terminate()
    watch.wait(timeout=10)
  gone = {one['image_id']: one['key'] for one in before['pictures']}
  assert 'pictures/beach/IMG_4.jpg' not in names
  # Nothing was mixed up: what is still there has the address that it had.
  for one in now['pictures']:
    assert one['key'] == gone.get(one['image_id'], one['key'])
    assert pathlib.Path(one['path']).name == (
        pathlib.PurePosixPath(one['image_id']).name)
  assert request(server, 'GET', '/picture/' + gone[
      'pictures/beach/IMG_4.jpg'])[0] == 404
