"""Builds the documentation into build/docs: `make docs`.

Every link inside is checked, every page must be in `NAV`, and nothing that a
page loads may come from the network.
"""

import html.parser
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

from docs import config_table

ROOT = config_table.ROOT
SOURCE, STAGE, SITE = (ROOT / 'docs', ROOT / 'build' / 'docs_source',
                       ROOT / 'build' / 'docs')
# Pages in their order; a page that is not written yet is left out.
NAV = {
    'Start': {
        'Start in five minutes': 'index.md', 'Concepts': 'concepts.md',
        'Your own pictures': 'your_own_pictures.md',
        'Search page': 'serve.md', 'Troubleshooting': 'troubleshooting.md'},
    'Data': {
        'Data': 'data.md', 'Formats': 'formats.md',
        'Protocols': 'protocols.md'},
    'Training': {
        'Every config key': 'configs.md', 'Scaling and plan': 'scaling.md',
        'The whole walk': 'pretraining.md', 'Pods and clusters': 'pods.md',
        'Weights': 'weights.md', 'What it reaches': 'results.md',
        'Performance': 'performance.md'},
    'Inside': {
        'How it works inside': 'inside.md', 'Extend it': 'extending.md',
        'Coming from M3P, VOLTA or MMT-Retrieval': 'porting.md'}}
_LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')
_ADDRESS = re.compile(r'https?://[\w.-]+\.[a-z]{2,}(/[^\s]*)?$')


def repository() -> str:
  """Returns the address of the repository, of pyproject.toml."""
  return tomllib.loads((ROOT / 'pyproject.toml').read_text())[
      'project']['urls']['Repository']


def pages() -> list[str]:
  """Returns the names of the pages that there are."""
  return sorted(path.name for path in SOURCE.glob('*.md'))


def mistakes() -> list[str]:
  """Returns what is wrong with pages and links, a line each."""
  listed = [name for section in NAV.values() for name in section.values()]
  found = [f'docs/{name} is not in NAV of docs/build.py'
           for name in pages() if name not in listed]
  for path in [SOURCE / name for name in pages()]:
    for _, _, target in _LINK.findall(path.read_text()):
      if target.startswith('http'):
        if not _ADDRESS.match(target):
          found.append(f'{path.name}: {target} is no address')
      elif not target.startswith('#') and not (
          path.parent / target.partition('#')[0]).exists():
        found.append(f'{path.name}: there is no {target}')
  return found


def stage() -> None:
  """Puts pages, pictures and the generator's config under build/."""
  shutil.rmtree(STAGE, ignore_errors=True)
  (STAGE / 'docs').mkdir(parents=True)
  for name in pages():
    (STAGE / 'docs' / name).write_text(for_site((SOURCE / name).read_text()))
  shutil.copytree(SOURCE / 'images', STAGE / 'docs' / 'images')
  nav = [(title, {label: name for label, name in section.items()
                  if (SOURCE / name).exists()})
         for title, section in NAV.items()]
  entries = ',\n'.join(
      f'  {{"{title}" = [' + ', '.join(
          f'{{"{label}" = "{name}"}}' for label, name in section.items())
      + ']}' for title, section in nav if section)
  (STAGE / 'zensical.toml').write_text(f'''[project]
site_name = "m3p_jax"
site_description = "M3P in JAX: pictures and captions in many languages"
repo_url = "{repository()}"
docs_dir = "docs"
site_dir = "site"
# Links that a disk can follow, too.
use_directory_urls = false
nav = [
{entries}
]

[project.theme]
language = "en"
# No fonts from the network: a reader's own are used.
font = false
features = ["content.code.copy", "navigation.sections", "navigation.top",
            "toc.follow"]
''')


def for_site(text: str) -> str:
  """Returns a page whose links to files of the code lead to the repository."""

  def link(match):
    mark, label, target = match.groups()
    if target.startswith('../'):
      target = f'{repository()}/blob/main/{target.removeprefix("../")}'
    return f'{mark}[{label}]({target})'

  return _LINK.sub(link, text)


class _Loads(html.parser.HTMLParser):
  """Collects what a page loads: scripts, styles, pictures, fonts."""

  def __init__(self):
    super().__init__()
    self.addresses: list[str] = []

  def handle_starttag(self, tag, attrs):
    values = dict(attrs)
    loads = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src'}
    if tag == 'link' and values.get('rel') not in (
        'canonical', 'next', 'prev', 'edit'):
      self.addresses.append(values.get('href') or '')
    elif values.get(loads.get(tag, '')):
      self.addresses.append(values[loads[tag]])


def network_loads(folder: pathlib.Path) -> list[str]:
  """Returns what the pages of a folder load from the network, a line each."""
  found = []
  for path in sorted(folder.rglob('*.html')):
    parser = _Loads()
    parser.feed(path.read_text())
    found += [f'{path.name} loads {address}' for address in parser.addresses
              if re.match(r'(https?:)?//', address)]
  return found


def main() -> None:
  """Builds the site; exit status 1 with a line for each mistake."""
  if config_table.write():
    print('docs/configs.md was not current and is written anew',
          file=sys.stderr)
  found = mistakes()
  if not found:
    stage()
    # Not through this process: it writes a stack trace after its findings.
    if subprocess.run(
        [sys.executable, '-m', 'zensical', 'build', '--strict',
         '--config-file', 'zensical.toml'], cwd=STAGE, check=False,
        stdout=sys.stderr).returncode:
      found.append('zensical found the mistakes above')
    else:
      found = network_loads(STAGE / 'site')
  for line in found:
    print(f'error: {line}', file=sys.stderr)
  if found:
    sys.exit(1)
  shutil.rmtree(SITE, ignore_errors=True)
  shutil.move(STAGE / 'site', SITE)
  print(f'{len(pages())} pages: {SITE.relative_to(ROOT)}/index.html')


if __name__ == '__main__':
  main()
