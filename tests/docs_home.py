"""A small home of a user, in which the names that the pages use are there.

`python -m tests.docs_home RUN` fills the working directory: pictures, features,
dictionaries, weights of other projects, and the run of `small_search` as the
quickstart's. All of it is real and tiny.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
from PIL import Image

from input_pipeline import dictionaries
from input_pipeline import languages
from input_pipeline import prepare
from input_pipeline import sources
from m3p_jax import config as config_lib
from m3p_jax.convert import exporting
from m3p_jax.convert import files
from m3p_jax.convert import importing
from m3p_jax.evaluation import retrieval
from m3p_jax.model import config as model_config
from m3p_jax.objectives import masking
from tests import region_writers
from tests import small_search
from tests import torch_files
from tests import weight_files

ROOT = pathlib.Path(__file__).parent.parent
_CONFIG = '''"""The checkout's config, small."""

from configs import {name} as real
from tests import docs_home


def get_config(*arguments):
  return docs_home.tiny(real.get_config(*arguments))
'''
_SPLITS = ('train', 'train', 'validation', 'test')


def make_checkout(home: pathlib.Path) -> None:
  """Links a checkout, in which configs alone are others: small ones."""
  for path in ROOT.iterdir():
    if path.name in ('m3p_jax', 'input_pipeline', 'benchmarks', 'main.py',
                     'Makefile') or path.suffix == '.txt':
      (home / path.name).symlink_to(path)
  (home / 'configs').mkdir()
  for path in (ROOT / 'configs').glob('*.py'):
    if 'def get_config' in path.read_text():
      (home / 'configs' / path.name).write_text(
          _CONFIG.format(name=path.stem))


def tiny(config):
  """Returns a config that takes two steps of four short rows."""
  config.model.update(dict(
      width=16, num_heads=2, mlp_width=32, num_layers=1, dropout=0.0,
      attention_dropout=0.0, dtype='float32',
      text_position=min(config.model.text_position, 36)))
  config.data.text.max_length = config.data.image_text.max_length = 12
  config.num_train_steps = config.checkpoint_every_steps = 2
  config.eval_every_steps = config.eval_batches = 0
  config.optimizer.warmup_steps = 0
  switch = config.data.image_text.code_switch
  if languages.ALL not in switch.languages:
    switch.languages = switch.languages and ('de', 'fr')
  for task in config.tasks.values():
    task.batch_size = 4
  return config


def _write_pictures(folder: pathlib.Path, splits: tuple[str, ...],
                    count: int) -> None:
  """Writes pictures with captions; the splits take turns."""
  folder.mkdir()
  found = {path.stem: path for path in
           sources.fetch('fluent-emoji-3d').rglob('*.webp')}
  lines = []
  for number, (code, captions) in enumerate(
      list(small_search.PICTURES.items())[:count]):
    name = f'{captions[0].replace(" ", "_")}.jpg'
    Image.open(found[code]).convert('RGB').save(folder / name)
    lines.append(json.dumps({
        'image': name, 'split': splits[number % len(splits)], 'captions': {
            language: [caption] for language, caption in zip(
                ('en', 'de'), captions, strict=False)}}))
  (folder / 'captions.jsonl').write_text('\n'.join(lines))


def _write_features(raw_dir: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes regions of M3P's detector for the pictures of a folder."""
  folder.mkdir()
  images = [region_writers.image(
      json.loads(line)['image'], seed=number, feature_dim=2_048)
            for number, line in enumerate(
                (raw_dir / 'captions.jsonl').read_text().splitlines())]
  region_writers.m3p_h5(folder, images)


def _write_corpora() -> None:
  """Writes what docs/pretraining.md begins with: text, captions, regions."""
  for edition in ('de', 'en', 'fr', 'als', 'zh_classical', 'sw', 'xx',
                  'tokipona'):
    path = pathlib.Path('wiki', edition, 'AA', 'wiki_00')
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps({
        'id': f'{number}', 'title': 'A', 'text': f'A\n\nThe {number} apples '
        f'are red in {edition}. A dog sees {number} cats and a house.'}) + '\n'
        for number in range(50)), encoding='utf-8')
  for name, count in (('Train_GCC-training', 50),
                      ('Validation_GCC-1.1.0-Validation', 8)):
    path = pathlib.Path('cc', f'{name}.tsv')
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(
        f'a red apple and {number} dogs\thttp://example.org/{number}.jpg\n'
        for number in range(count)), encoding='utf-8')
  images = [region_writers.image(f'{prefix}{number}', seed=number,
                                 feature_dim=2_048)
            for prefix, count in (('', 50), ('valid_', 8))
            for number in range(count)]
  region_writers.mmf_npy(pathlib.Path(), images).rename('x101')
  pathlib.Path('panlex').mkdir()
  header = 'id\tlangvar\ttxt\ttxt_degr\tmeaning\n'
  for code, words in (('eng', ('dog', 'red')), ('spa', ('perro', 'rojo'))):
    pathlib.Path('panlex', f'{code}.tsv').write_text(header + ''.join(
        f'{number}\t{code}-000\t{word}\t{word}\t{number}\n'
        for number, word in enumerate(words)), encoding='utf-8')


def _write_weights() -> None:
  config = model_config.ModelConfig(
      width=16, num_heads=2, mlp_width=16, num_layers=1, num_languages=100,
      embedding_dim=8)
  path = weight_files.write(pathlib.Path('checkpoint.pth').absolute(),
                            weight_files.random_m3p(config), geometry=False)
  weight_files.write_geometry(path.parent, config.num_heads)
  imported = importing.read('m3p', path)
  draft = path.with_name('draft')
  importing.write(imported, draft, asked_languages=None)
  torch_files.write_flat(path.with_name('pytorch_model.bin'),
                         exporting.volta_tensors(exporting.load(draft))[0])
  shutil.rmtree(draft)
  _write_xlmr(pathlib.Path('xlm-roberta-base'))


def _write_xlmr(folder: pathlib.Path) -> None:
  """Writes the golden XLM-R with a table for every word of the tokenizer."""
  folder.mkdir()
  tensors = files.read_safetensors(weight_files.XLMR)
  for key in tensors:
    if key.endswith('word_embeddings.weight'):
      tensors[key] = np.random.default_rng(0).normal(0, .02, (
          masking.VOCAB_SIZE, tensors[key].shape[1])).astype(np.float32)
  files.write_safetensors(folder / 'model.safetensors', {
      key: value for key, value in tensors.items()
      if not key.startswith('lm_head')}, {'format': 'pt'})
  config = json.loads(weight_files.XLMR.with_name('config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(
      config | {'vocab_size': masking.VOCAB_SIZE}))


def _write_dictionaries() -> None:
  pathlib.Path('muse').mkdir()
  for language in ('de', 'fr'):
    pathlib.Path(f'muse/en-{language}.txt').write_text(
        'apple Apfel\ndog Hund\ncat Katze\nred rot\n')
    dictionaries.build((language,), 'data', source='muse', path='muse')
  shutil.copytree('data/dictionaries/muse', 'data/dictionaries/freedict')


def _evaluate(run: pathlib.Path) -> None:
  """Writes the same results into two workdirs, A and B."""
  config = config_lib.get_config(str(run / 'config.json'))
  config.update_from_flattened_dict({
      'init_from': str(run), 'setting': 'all', 'evaluation.split': 'train'})
  retrieval.evaluate(config, 'A')
  shutil.copytree('A', 'B')


def main(small_run: pathlib.Path) -> None:
  """Fills the working directory."""
  _write_pictures(pathlib.Path('DIR'), _SPLITS, 8)
  _write_pictures(pathlib.Path('pictures'), ('test',), 2)
  for name in ('cat.jpg', 'my_cat.jpg', 'dog.jpg'):
    shutil.copy('DIR/a_red_apple.jpg', name)
  _write_features(pathlib.Path('DIR'), pathlib.Path('FEATURES'))
  _write_corpora()
  _write_weights()
  _write_dictionaries()
  run = pathlib.Path('runs/quickstart')
  shutil.copytree(small_run, run)
  shutil.copytree(small_run.parent / 'data', 'data', dirs_exist_ok=True)
  config = json.loads((run / 'config.json').read_text())
  config['data']['data_dir'] = 'data'
  config['evaluation']['split'] = 'test'
  (run / 'config.json').write_text(json.dumps(config))
  shutil.copytree(run, 'runs/photos')
  _evaluate(run)
  prepare.prepare('udhr', 'data', limit=20, languages=('en', 'de'))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
