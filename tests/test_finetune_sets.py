"""Multi30K's and COCO's configs on data in those sets' own layouts."""

import dataclasses
import json

import pytest

from configs import finetuning
from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import pipeline
from input_pipeline import prepare
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import results
from m3p_jax.recipes import finetune
from tests import caption_trees
from tests import region_writers
from tests import retrieval_data

# As COCO's pictures are called: every layout here uses the same.
NAMES = {split: [f'COCO_{split}_{i:012}' for i in range(count)]
         for split, count in (('train', 6), ('val', 2), ('test', 5))}
CODES = {'multi30k': ('en', 'de', 'fr', 'cs'), 'coco': ('en', 'ja', 'zh_CN')}


def _write_multi30k(folder):
  for task, test, copies, codes in (
      ('task1', 'test_2016_flickr', ('',), CODES['multi30k']),
      ('task2', 'test_2016', [f'.{i}' for i in range(1, 6)], ('en', 'de'))):
    for split, names in NAMES.items():
      theirs = test if split == 'test' else split
      data = folder / 'data' / task
      caption_trees.write(data / 'image_splits' / f'{theirs}.txt',
                          *(f'{name}.jpg' for name in names))
      for copy in copies:
        for code in codes:
          caption_trees.write(
              data / 'raw' / f'{theirs}{copy}.{code}.gz',
              *(f'{code} {task}{copy} of {name}' for name in names))


def _write_coco(folder):
  rows = [(f'{name}.jpg', number, split) for number, (split, name) in enumerate(
      (split, name) for split, names in NAMES.items() for name in names)]
  caption_trees.karpathy(folder / 'dataset_coco.json', rows, captions=6)
  (folder / 'stair_captions_v1.2_val.json').write_text(json.dumps({
      'annotations': [{'id': 0, 'image_id': number, 'caption': f'{i}匹 {name}'}
                      for name, number, _ in rows for i in range(5)]}))


def _write_coco_cn(folder):
  for split, names in NAMES.items():
    caption_trees.write(folder / f'coco-cn_{split}.txt', *names)
  caption_trees.write(folder / 'imageid.human-written-caption.txt', *(
      f'{name}#{i}\t第{i} {name}' for names in NAMES.values()
      for name in names for i in range(2)))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Returns a folder with `data/`, four prepared sets, and `weights/`."""
  folder = tmp_path_factory.mktemp('sets')
  _write_multi30k(folder / 'multi30k')
  _write_coco(folder / 'coco')
  _write_coco_cn(folder / 'coco_cn')
  features = region_writers.lxmert_tsv(folder, [
      region_writers.image(name, seed=seed, feature_dim=8)
      for seed, name in enumerate(sum(NAMES.values(), []))])
  for dataset in ('multi30k', 'multi30k_task1', 'coco', 'coco_cn'):
    prepare.prepare(
        dataset, str(folder / 'data'), features=str(features),
        raw_dir=str(folder / dataset.removesuffix('_task1')),
        features_format='lxmert_tsv')
  retrieval_data.save_checkpoint(
      folder / 'weights' / 'checkpoints', step=1,
      config=dataclasses.replace(retrieval_data.CONFIG, vocab_size=250_002),
      manifest={})
  return folder


def _recipe(name, folder, workdir):
  return finetune.Finetune(
      name, workdir, folder / 'data', init_from=str(folder / 'weights'),
      overrides={'model.dtype': 'float32', 'evaluation.mode': 'dual',
                 'evaluation.batch_size': 32})


@pytest.mark.parametrize('name', CODES)
def test_every_run_finds_its_captions(name, folder, tmp_path):
  recipe = _recipe(name, folder, tmp_path)
  runs = [(setting, language) for setting in finetuning.SETTINGS[1:]
          for language in (CODES[name] if setting == 'each' else ('',))]
  for setting, language in runs:
    data = recipe.config(setting, language).data
    batch = next(iter(pipeline.build(
        data, recipe.config(setting, language).tasks, seed=0)))['contrastive']
    assert {data.languages[i] for i in batch.language_B.numpy()} == set(
        {'en': ('en',), 'each': (language,), 'all': CODES[name]}[setting])
    # An image has one id in all sets and languages.
    assert len(set(batch.regions.image_id_B.numpy().tolist())) == 6


def test_multi30k_is_evaluated_on_task_1(folder, tmp_path):
  recipe = _recipe('multi30k', folder, tmp_path)
  recipe.run(('no_finetune',))
  content = results.read(tmp_path / 'retrieval.json')
  assert [content[key] for key in results.HEADER] == [
      'multi30k-task1', 'multi30k_task1', 'test']
  cell = content['settings']['no_finetune']
  assert {name: (one['num_images'], one['num_captions'])
          for name, one in cell['languages'].items()} == dict.fromkeys(
              CODES['multi30k'], (5, 5))
  assert cell['deviations'] == ['5 pictures instead of 1000']
  assert '| setting | en | de | fr | cs |' in recipe.table()


def test_coco_is_evaluated_on_two_sets(folder, tmp_path):
  recipe = _recipe('coco', folder, tmp_path)
  recipe.run(('no_finetune',))
  for file, protocol, found in (
      ('retrieval', 'coco-1k', {'en': 25, 'ja': 25}),
      ('retrieval_coco_cn_test', 'coco-cn-1k', {'zh_CN': 10})):
    content = results.read(tmp_path / f'{file}.json')
    assert content['protocol'] == protocol
    assert {name: one['num_captions'] for name, one in content['settings'][
        'no_finetune']['languages'].items()} == found
    for text in (recipe.table(), (tmp_path / 'report.html').read_text()):
      assert protocol in text
  for language, dataset in (('ja', 'coco'), ('zh_CN', 'coco_cn')):
    (config,) = recipe.evaluations('each', language)
    assert config.evaluation.dataset == dataset
    assert config.evaluation.languages == (language,)


@pytest.mark.parametrize('protocol, dataset, language, folds, captions', [
    ('multi30k-task2x5', 'multi30k', 'de', 1, 25),
    ('m3p-pad5', 'multi30k', 'fr', 1, 25),
    ('coco-1k', 'coco', 'en', 1, 25),
    ('coco-5x1k', 'coco', 'ja', 5, 5),
    ('coco-5k', 'coco', 'en', 1, 25),
    ('coco-cn-1k', 'coco_cn', 'zh_CN', 1, 10)])
def test_protocols_take_the_captions_they_mean(
    folder, protocol, dataset, language, folds, captions):
  loaded = evaluation_set.load(
      folder / 'data', dataset, 'test', (language,), 64)
  trials = protocols.trials(
      protocol, language, len(loaded.image_ids), loaded.captions[language])
  assert [trial.is_right_CI.shape for trial in trials] == [
      (captions, 5 // folds)] * folds


def test_five_captions_are_no_task_1(folder):
  loaded = evaluation_set.load(folder / 'data', 'multi30k', 'test', ('en',), 64)
  with pytest.raises(errors.UserError, match='needs 1 caption of every'):
    protocols.trials('multi30k-task1', 'en', 5, loaded.captions['en'])
