"""A small collection of real pictures, and a model that knows it.

A run as a user makes it: twenty emoji with captions in three languages,
prepared, and a tiny model fitted to them in seconds.
"""

import json
import pathlib
import shutil

from configs import base
from input_pipeline import prepare
from input_pipeline import sources
from m3p_jax import train

LANGUAGES = ('en', 'de', 'ja')
# Code point of the picture: its captions.
PICTURES = {
    '1f34e': ('a red apple', 'ein roter Apfel', '赤いりんご'),
    '1f34c': ('a ripe banana', 'eine reife Banane', '熟したバナナ'),
    '1f347': ('a bunch of grapes', 'eine Weintraube', 'ぶどうの房'),
    '1f353': ('a sweet strawberry', 'eine süße Erdbeere', '甘いいちご'),
    '1f955': ('an orange carrot', 'eine orange Karotte', 'オレンジ色の人参'),
    '1f415': ('a brown dog', 'ein brauner Hund', '茶色い犬'),
    '1f408': ('an orange cat', 'eine Katze', '猫が立っている'),
    '1f418': ('a grey elephant', 'ein grauer Elefant', '灰色の象'),
    '1f41f': ('a blue fish', 'ein blauer Fisch', '青い魚'),
    '1f427': ('a small penguin', 'ein kleiner Pinguin', '小さなペンギン'),
    '1f697': ('a fast car', 'ein schnelles Auto', '速い車'),
    '1f682': ('an old locomotive', 'eine alte Lokomotive', '古い機関車'),
    '26f5': ('a sailing boat', 'ein Segelboot', '帆船'),
    '1f6b2': ('a new bicycle', 'ein neues Fahrrad', '新しい自転車'),
    '1f333': ('a green tree', 'ein grüner Baum', '緑の木'),
    '1f33b': ('a yellow sunflower', 'eine gelbe Sonnenblume', '黄色いひまわり'),
    '1f3e0': ('a house with a garden', 'ein Haus mit Garten', '庭のある家'),
    '1f511': ('a golden key', 'ein goldener Schlüssel', '金色の鍵'),
    '1f451': ('a royal crown', 'eine königliche Krone', '王冠'),
    '231a': ('a wrist watch', 'eine Armbanduhr', '腕時計'),
}
_STEPS = 60


def make_run(folder: pathlib.Path) -> pathlib.Path:
  """Returns the workdir of a run; its data lie beside it.

  Raises:
    UserError: the pictures cannot be fetched.
  """
  raw_dir, data_dir = folder / 'raw', folder / 'data'
  write_pictures(raw_dir)
  prepare.prepare('captions', str(data_dir), raw_dir=str(raw_dir),
                  languages=LANGUAGES)
  workdir = folder / 'run'
  train.train_and_evaluate(make_config(data_dir), workdir)
  return workdir


def write_pictures(raw_dir: pathlib.Path) -> None:
  """Writes captions.jsonl and the pictures that it names."""
  raw_dir.mkdir(parents=True)
  found = {path.stem: path for path in
           sources.fetch('fluent-emoji-3d').rglob('*.webp')}
  lines = []
  for name, captions in PICTURES.items():
    shutil.copy(found[name], raw_dir / f'{name}.webp')
    lines.append(json.dumps({
        'image': f'{name}.webp', 'split': 'train', 'captions': {
            language: [caption] for language, caption in zip(
                LANGUAGES, captions, strict=True)}}))
  (raw_dir / 'captions.jsonl').write_text('\n'.join(lines))


def make_config(data_dir: pathlib.Path):
  """Returns the config of a run that learns the captions by heart."""
  config = base.get_config()
  config.model.update(dict(
      width=32, num_heads=2, mlp_width=64, num_layers=1, max_positions=64,
      region_feature_dim=1280, num_region_classes=1001, num_languages=1,
      embedding_dim=32, match_head='first+product', dropout=0.0,
      attention_dropout=0.0, dtype='float32'))
  config.data.data_dir = str(data_dir)
  config.data.languages = LANGUAGES
  config.data.image_text.datasets = ('captions',)
  config.data.image_text.languages = LANGUAGES
  config.data.image_text.max_length = 12
  config.tasks = dict(
      contrastive=base.task_config('contrastive', 'image_text', 20),
      # The head that re-ranks: the vectors have to stay those of the captions.
      mc_vlm=base.task_config('matching', 'image_text', 4, weight=0.01))
  config.optimizer.learning_rate = 5e-3
  config.optimizer.warmup_steps = 5
  config.num_train_steps = config.checkpoint_every_steps = _STEPS
  config.eval_batches = 0
  config.evaluation.update(dict(
      dataset='captions', split='train', mode='dual', top_k=5, batch_size=32))
  return config
