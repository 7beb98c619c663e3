"""Every file that is found by its name keeps its folder's contract."""

import importlib
import inspect
import pathlib

import pytest

from configs import languages as language_table
from configs import quickstart
from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import prepare
from input_pipeline import regions
from input_pipeline.regions import source as source_lib

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = {'tux_paint', 'cldr', 'udhr', 'freedict'}


def _modules(folder: str) -> list[str]:
  return sorted(path.stem for path in (ROOT / folder).glob('*.py')
                if not path.stem.startswith('_'))


def test_folders_are_walked():
  assert prepare.names() == _modules('input_pipeline/datasets')
  assert source_lib.names() == _modules('input_pipeline/formats')


@pytest.mark.parametrize('name', _modules('input_pipeline/datasets'))
def test_dataset(name):
  module = importlib.import_module(f'input_pipeline.datasets.{name}')
  assert inspect.getdoc(module)
  assert module.Builder.name == name
  assert issubclass(
      module.Builder, (builder.TextBuilder, builder.ImageTextBuilder))
  assert module.Builder.items is not builder.TextBuilder.items


@pytest.mark.parametrize('name', _modules('input_pipeline/formats'))
def test_format(name):
  module = importlib.import_module(f'input_pipeline.formats.{name}')
  assert inspect.getdoc(module)
  assert issubclass(module.Reader, regions.Reader)
  assert module.Reader.entries is not regions.Reader.entries
  assert module.Reader.load is not regions.Reader.load
  if hasattr(module, 'Writer'):
    assert module.Writer.add is not regions.Writer.add
  manual = (ROOT / 'docs' / 'formats.md').read_text()
  assert f'`{name}`' in manual


def test_every_language_has_a_name_and_its_sources():
  for row in language_table.TABLE:
    assert languages.get(row.code) is row, f'{row.code}: two rows'
    assert row.name and row.native_name
    assert set(row.sources) == SOURCES
    assert languages.name(row.code) == row.name


@pytest.mark.parametrize('source', sorted(SOURCES))
def test_no_two_languages_share_a_source(source):
  theirs = [languages.get(code).sources[source] for code in languages.codes()]
  theirs = [code for code in theirs if code]
  assert len(theirs) == len(set(theirs))


def test_no_two_languages_share_an_alias():
  aliases = list(languages.codes())
  for code in languages.codes():
    aliases += languages.get(code).also
  aliases = [alias.casefold() for alias in aliases]
  assert len(aliases) == len(set(aliases))
  for theirs, code in {'zh': 'zh_CN', 'zh-Hans': 'zh_CN', 'ces': 'cs',
                       'jp': 'ja', 'IW': 'he', 'pt-BR': 'pt_BR', 'no': 'nb',
                       'tl': 'fil', 'in': 'id', 'GER': 'de',
                       'zho-Hant': 'zh_TW',
                       'quz': ''}.items():
    assert languages.resolve(theirs) == code


def test_evaluated_languages_are_in_every_dataset():
  for source in sorted(SOURCES - {'freedict'}):
    found = languages.source_codes(source, quickstart.LANGUAGES)
    assert list(found.values()) == list(quickstart.LANGUAGES), source


def test_unknown_language_names_the_nearest():
  with pytest.raises(errors.UserError, match="'zh_cn'.*'zh_CN'"):
    languages.get('zh_cn')
  with pytest.raises(errors.UserError, match="'deu'; did you mean 'de'"):
    languages.get('deu')


@pytest.mark.parametrize('name', [
    name for name in _modules('m3p_jax/objectives')
    if hasattr(importlib.import_module(f'm3p_jax.objectives.{name}'), 'loss')])
def test_objective(name):
  module = importlib.import_module(f'm3p_jax.objectives.{name}')
  assert inspect.getdoc(module)
  assert inspect.getdoc(module.loss).startswith('Returns')
  parameters = list(inspect.signature(module.loss).parameters.values())
  assert [p.name for p in parameters[:3]] == ['model', 'batch', 'key']
  assert all(p.kind == p.KEYWORD_ONLY for p in parameters[3:])
