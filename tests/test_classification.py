"""Classes of texts about pictures: from IGLUE's files to an accuracy."""

import dataclasses
import functools
import json
import pathlib
import pickle
import shutil
import subprocess

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from input_pipeline import labelled_set
from input_pipeline import prepare
from input_pipeline import store
from input_pipeline.vision import extractors
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import startup
from m3p_jax import train
from m3p_jax.evaluation import accuracy
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import statistics
from m3p_jax.model import m3p
from m3p_jax.objectives import classification
from tests import caption_trees
from tests import compiler
from tests import models
from tests import region_writers
from tests import test_parts
from tests import toy

ROOT = pathlib.Path(__file__).parent.parent
_items = caption_trees.items
KEY = jax.random.key(3)
HEADS = (('one', 'classifier', 3, 1), ('two', 'classifier', 2, 2))


@functools.cache
def model():
  """Returns (module, params) with a head for one picture, and one for two."""
  config = dataclasses.replace(models.SHORT, heads=HEADS)
  return m3p.M3P(config), jax.jit(
      lambda key: nn.unbox(m3p.init_params(config, key)))(jax.random.key(0))


def rows(seed=0):
  batch = models.short_words(models.batch(seed=seed))
  return batch._replace(extra={'label_B': jnp.asarray([0, 2, -1, 1])})


@functools.partial(jax.jit, static_argnums=2)
def logits(params, batch, head):
  return nn.apply(lambda m: classification.logits(m, batch, head), model()[0])(
      {'params': params})


@functools.partial(jax.jit)
def loss(params, batch):
  return nn.apply(lambda m: classification.loss(
      m, batch, KEY, head='one', num_labels=3), model()[0])({'params': params})


def test_the_loss_by_hand_and_unknown_labels_weigh_nothing():
  params, batch = model()[1], rows()
  logits_BX = np.asarray(logits(params, batch, 'one'))
  assert logits_BX.shape == (4, 3)
  odds_BX = np.exp(logits_BX)
  probability_BX = odds_BX / odds_BX.sum(1, keepdims=True)
  by_hand = -np.log(probability_BX[[0, 1, 3], [0, 2, 1]]).sum()
  mean, others = loss(params, batch)
  np.testing.assert_allclose(mean.total, by_hand, rtol=1e-5)
  assert mean.weight == others['accuracy'].weight == 3
  assert others['accuracy'].total == (
      logits_BX.argmax(1) == [0, 2, -1, 1]).sum()


def test_without_a_label_the_loss_is_zero_with_a_finite_gradient():
  batch = rows()._replace(extra={'label_B': jnp.full(4, -1)})
  value, gradient = jax.value_and_grad(
      lambda params: loss(params, batch)[0].compute())(model()[1])
  assert value == 0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_a_pair_is_read_in_its_order_and_no_row_reads_another():
  params, batch, other = model()[1], rows(), rows(1)
  pair = batch._replace(extra=batch.extra | {'second': other.regions})
  swapped = pair._replace(
      regions=other.regions, extra=batch.extra | {'second': batch.regions})
  one, two = (np.asarray(logits(params, x, 'two')) for x in (pair, swapped))
  assert one.shape == (4, 2)
  assert np.abs(one - two).min() > 1e-4
  first = jax.tree.map(lambda x: x[:1], pair)
  np.testing.assert_allclose(
      logits(params, first, 'two'), one[:1], rtol=1e-4, atol=1e-6)


def xvnli(root):
  row = dict(sentence1='', captionID='7.jpg#0', pairID='7.jpg#0r1n')
  for code, names in (('en', ('train', 'dev', 'test', 'train_1')),
                      ('ar', ('test', 'train_1', 'train_5'))):
    for name in names:
      caption_trees.jsonl(
          root / 'datasets/XVNLI/annotations' / code / f'{name}.jsonl', *(
              row | dict(gold_label=label, Flikr30kID=str(picture),
                         sentence2=f'{code} {label} {name}')
              for picture in ((7, 8) if name == 'test' else (9,))
              for label in ('neutral', 'contradiction', '-')))
  return root


def marvl(root):
  row = dict(concept='39-Panci', chapter='', annotator_info={})
  for name in ('zero_shot/annotations/marvl-id',
               'few_shot/annotations/marvl-id_train1',
               'few_shot/annotations/marvl-id_train10x2',
               'zero_shot/annotations_machine-translate/marvl-id_gmt'):
    caption_trees.jsonl(root / 'datasets/marvl' / f'{name}.jsonl', *(
        row | dict(language='id', caption=f'{label} {name}', label=label,
                   left_img='39-Panci/1.jpg', right_img='39-Panci/2.jpg',
                   id=f'id-{label}') for label in (True, False)))
  for split in ('train', 'dev', 'test1'):
    path = root / 'datasets/nlvr2/annotations' / f'{split}.json'
    caption_trees.jsonl(path, *(
        dict(sentence=f'{split} {number}', label=label, left_url='',
             identifier=f'{split}-4-0-{number}')
        for number, label in enumerate(('True', 'False'))))
  return root


def xgqa(root, answers=('json', json.dumps)):
  folder = root / 'datasets/xGQA/annotations/few_shot'
  for code, name in (('de', 'test'), ('de', 'train_1'), ('de', 'dev'),
                     ('en', 'test')):
    caption_trees.write(folder / code / f'{name}.json', json.dumps({
        f'{number}': dict(question=f'{code} {answer}?', imageId='n40',
                          answer=answer, types={}, groups={})
        for number, answer in enumerate(('no', 'bus', 'never'))}))
  caption_trees.write(root / 'datasets/gqa/val_balanced_questions.json',
                      json.dumps({'1': dict(question='is it?', imageId='12',
                                            answer='bus')}))
  ending, dump = answers
  path = root / f'datasets/gqa/trainval_ans2label.{ending}'
  content = dump({'bus': 1, 'no': 0})
  path.write_bytes(content if ending == 'pkl' else content.encode())
  return root


def test_xvnli_is_read_as_published(tmp_path):
  found = _items('xvnli', xvnli(tmp_path))
  assert found['test/7.jpg'] == ('test', [
      ('ar', 'ar neutral test', 2), ('ar', 'ar contradiction test', 0),
      ('en', 'en neutral test', 2), ('en', 'en contradiction test', 0)])
  assert {split for split, _ in found.values()} == {
      'train', 'validation', 'test', 'train_1', 'train_5'}
  # Translations stay apart: they are asked for by their folder.
  caption_trees.jsonl(
      tmp_path / 'datasets/XVNLI/annotations_machine-translate/ar/test.jsonl',
      dict(gold_label='neutral', sentence2='it rains', Flikr30kID='7'))
  assert _items('xvnli', tmp_path) == found
  assert _items('xvnli', tmp_path / 'datasets/XVNLI'
                / 'annotations_machine-translate') == {
                    'test/7.jpg': ('test', [('ar', 'it rains', 2)])}


def test_marvl_and_nlvr2_are_read_as_published(tmp_path):
  found = _items('marvl', marvl(tmp_path))
  pair = '39-Panci/1.jpg+39-Panci/2.jpg'
  assert found[f'test/{pair}'] == ('test', [
      ('id', 'True zero_shot/annotations/marvl-id', 1),
      ('id', 'False zero_shot/annotations/marvl-id', 0)])
  assert found[f'train_1/{pair}'][0] == 'train_1'
  assert found['validation/dev-4-0-img0.png+dev-4-0-img1.png'] == (
      'validation', [('en', 'dev 0', 1), ('en', 'dev 1', 0)])
  assert len(found) == 5
  translated = _items('marvl', tmp_path / 'datasets/marvl/zero_shot'
                      / 'annotations_machine-translate')
  assert [split for split, _ in translated.values()] == ['test']


@pytest.mark.parametrize('answers', [('json', json.dumps),
                                     ('pkl', pickle.dumps)])
def test_xgqa_is_read_as_published(tmp_path, answers):
  found = _items('xgqa', xgqa(tmp_path, answers))
  # An answer that is not in the list is never right.
  assert found['test/n40.jpg'] == ('test', [
      ('de', 'de no?', 0), ('de', 'de bus?', 1), ('de', 'de never?', -1),
      ('en', 'en no?', 0), ('en', 'en bus?', 1), ('en', 'en never?', -1)])
  assert found['validation/12.jpg'][1] == [('en', 'is it?', 1)]


@pytest.mark.parametrize('name, path, content, message', [
    ('xvnli', 'en/test.jsonl', dict(gold_label='maybe', sentence2='',
                                    Flikr30kID='1'),
     'gold_label in .*:1.*maybe'),
    ('xvnli', 'en/test.jsonl', dict(gold_label='-', sentence2=''),
     'Flikr30kID'),
    ('marvl', 'marvl-id.jsonl', dict(caption=3, left_img='', right_img='',
                                     label=True), 'the text is 3'),
    ('xgqa', 'trainval_ans2label.json', {'a': 1}, 'numbered from 0'),
    ('xgqa', 'trainval_ans2label.json', {'a': '0'}, 'numbered from 0'),
    ('xgqa', 'few_shot/de/test.json', {}, 'has no trainval_ans2label')])
def test_wrong_files_of_iglue_are_named(tmp_path, name, path, content, message):
  caption_trees.write(tmp_path / path, json.dumps(content))
  caption_trees.write(tmp_path / 'few_shot/de/dev.json', json.dumps(
      {'1': dict(question='', imageId='', answer='')}))
  with pytest.raises(errors.UserError, match=message):
    _items(name, tmp_path)


def test_pairs_are_prepared_from_extracted_regions(tmp_path):
  """As IGLUE's users have them: annotations, and a file of regions."""
  raw = marvl(tmp_path / 'raw')
  names = ['39-Panci/1.jpg', '39-Panci/2.jpg', *(
      f'{split}-4-0-img{i}.png' for split in ('train', 'dev', 'test1')
      for i in range(2))]
  features = region_writers.lxmert_tsv(tmp_path, [
      region_writers.image(name, seed=seed, feature_dim=8)
      for seed, name in enumerate(names)])
  folder = prepare.prepare(
      'marvl', str(tmp_path / 'data'), raw_dir=str(raw),
      features=str(features), features_format='lxmert_tsv')
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['labels'] == ['false', 'true']
  assert manifest['counts'] == {
      'test': 2, 'train': 1, 'train_1': 1, 'validation': 1}
  assert manifest['languages'] == ['en', 'id']
  records = {row['image_id'].decode(): row for row in store.open_builder(
      tmp_path / 'data', 'marvl').as_dataset('test').as_numpy_iterator()}
  row = records['test/39-Panci/1.jpg+39-Panci/2.jpg']
  one = region_writers.image(names[0], seed=0, feature_dim=8)
  other = region_writers.image(names[1], seed=1, feature_dim=8)
  for found, image in ((row, one), (row['second'], other)):
    np.testing.assert_allclose(found['features'], image.features, rtol=1e-2)
    assert (found['width'], found['height']) == (image.width, image.height)
  assert row['captions']['label'].tolist() == [1, 0]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
  """A user's captioned pictures, of which anyone can make a task."""
  monkeypatch.setattr(extractors, 'GridExtractor', toy.Extractor)
  folder = tmp_path / 'raw'
  folder.mkdir()
  lines = []
  for number in range(12):
    Image.new('RGB', (40 + number, 30), (20 * number, 90, 90)).save(
        folder / f'{number}.png')
    lines.append(json.dumps({
        'image': f'{number}.png', 'split': 'train' if number % 3 else 'test',
        'captions': {'en': [f'number {number}'], 'de': [f'Zahl {number}']}}))
  (folder / 'captions.jsonl').write_text('\n'.join(lines))
  return folder


def test_whether_a_caption_fits_is_asked_of_every_caption_twice(photographs):
  found = _items('caption_fit', photographs)
  assert len(found) == 12
  for split in ('train', 'test'):
    texts = [(text, label) for one, captions in found.values() if one == split
             for _, text, label in captions]
    # A text alone tells nothing.
    right, wrong = ({text for text, label in texts if label == wanted}
                    for wanted in (1, 0))
    assert right == wrong
    assert len(texts) == 2 * len(right)
  for name, (_, captions) in found.items():
    number = name.removesuffix('.png')
    assert all((text.split()[1] == number) == label
               for _, text, label in captions)


def make_config(**changes):
  """Returns a run that learns which words the captions of `labelled` have."""
  config = toy.config(('classification', dict(
      stream='labelled', num_labels=3, data=dict(
          datasets=('labelled',), languages=('en', 'de'), max_length=36))),
      model__width=32, model__mlp_width=64, model__max_positions=48,
      num_train_steps=60, checkpoint_every_steps=60, log_every_steps=60,
      data__image_text__datasets=(), optimizer__learning_rate=3e-3)
  config.tasks.classification_labelled.batch_size = 16
  config.evaluation.update(dict(
      protocol='labels', dataset='labelled', split='train', batch_size=24))
  for key, value in changes.items():
    config.update_from_flattened_dict({key.replace('__', '.'): value})
  return config


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Returns the workdir of a trained run."""
  workdir = tmp_path_factory.mktemp('run') / 'run'
  train.train_and_evaluate(make_config(), workdir)
  return workdir


def test_a_head_is_trained_saved_and_measured(run, capsys):
  entry = accuracy.evaluate(make_config(), run)
  assert set(entry['languages']) == {'en', 'de'}
  path = run / 'accuracy' / 'labelled_train.json'
  saved = json.loads(path.read_text())
  assert saved['protocol'] == 'labels'
  assert saved['settings']['no_finetune']['head'] == 'classification_labelled'
  captions = [c for row in store.open_builder(
      toy.data_dir(), 'labelled').as_dataset('train').as_numpy_iterator()
              for c in zip(row['captions']['language'],
                           row['captions']['label'], strict=True)]
  for name, one in entry['languages'].items():
    labels = [label for language, label in captions
              if language.decode() == name]
    assert one['texts'] == len(labels)
    assert one['most_frequent'] == pytest.approx(
        100 * max(np.bincount(labels)) / len(labels))
    # What it was trained on, it knows.
    assert one['accuracy'] > one['most_frequent'] + 10
    low, high = one['interval']
    assert low <= one['accuracy'] <= high
  assert f'written to {path}' in capsys.readouterr().out
  # Another language later: both stay.
  accuracy.evaluate(make_config(evaluation__languages=('de',)), run)
  assert set(json.loads(path.read_text())['settings']['no_finetune'][
      'languages']) == {'en', 'de'}


def test_an_accuracy_is_asked_for_by_its_protocol(run, python):
  """As typed; the workdir's config names the protocol `labels`."""
  done = subprocess.run(
      [python, 'main.py', f'--workdir={run}', '--mode=evaluate',
       '--config.evaluation.languages=de'], cwd=ROOT, text=True,
      env=compiler.environment(1), capture_output=True, check=False)
  assert done.returncode == 0, done.stderr
  assert 'protocol labels, setting no_finetune, accuracy' in done.stdout
  assert '\nde ' in done.stdout and '\nen ' not in done.stdout


def test_an_accuracy_is_that_of_the_objective(run):
  config = make_config()
  params, geometry, _ = checkpoint.load(run)
  entry = accuracy.evaluate(make_config(evaluation__batch_size=7), run)
  asked = labelled_set.LabelledSet(toy.data_dir(), 'labelled', 'train', ['all'])
  texts = asked.texts['de']
  batch = asked.read(texts)
  mean, others = nn.apply(lambda m: classification.loss(
      m, batch, KEY, head='classification_labelled', num_labels=3),
                          m3p.M3P(geometry))({'params': params})
  assert mean.weight == len(texts)
  assert entry['languages']['de']['accuracy'] == pytest.approx(
      100 * float(others['accuracy'].compute()))
  assert startup.model_config(config).heads == geometry.heads


def test_a_head_goes_onto_any_weights_and_all_else_stays(tmp_path):
  weights = tmp_path / 'weights'
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(
      test_parts.geometry(), key)))(jax.random.key(1))
  checkpoint.save_weights(
      weights, params, test_parts.geometry(), {'languages': ['en']})
  asked = make_config(init_from=str(weights))
  start, found = test_parts.first_params(asked, tmp_path / 'run')
  assert start.fresh == ('heads_classification_labelled: 299 numbers',)
  for path, value in test_parts.layout.flatten(params).items():
    np.testing.assert_array_equal(found[path], value, path)
  # Another task's head comes beside it; one of another size is refused.
  beside = tmp_path / 'beside'
  checkpoint.save_weights(beside, test_parts.layout.nested(found), start.config,
                          {'languages': ['en']})
  asked.init_from = str(beside)
  asked.tasks.other = asked.tasks.classification_labelled
  second = startup.resolve(asked, tmp_path / 'run')
  assert second.fresh == ('heads_other: 299 numbers',)
  asked.tasks.classification_labelled.options.num_labels = 4
  with pytest.raises(errors.UserError, match="'classification_labelled' is"):
    startup.resolve(asked, tmp_path / 'run')


@pytest.mark.parametrize('changes, message', [
    (dict(evaluation__dataset='twins'),
     'classification_labelled .3 numbers of 1 .* for 3 labels of 2 pictures'),
    (dict(evaluation__dataset='pairs'), "'pairs' has no labels"),
    (dict(evaluation__split='train_1'), "'train_1'")])
def test_what_cannot_be_measured_is_refused(run, changes, message):
  with pytest.raises(errors.UserError, match=message):
    accuracy.evaluate(make_config(**changes), run)


def test_weights_of_a_head_that_is_not_here_are_not_called_damaged(
    tmp_path, run):
  shutil.copytree(run / 'checkpoints', tmp_path / 'checkpoints')
  for path in (tmp_path / 'checkpoints').glob('*/config.json'):
    path.write_text(path.read_text().replace('classifier', 'thresholds'))
  with pytest.raises(errors.UserError, match='heads/thresholds.py.*not there'):
    accuracy.evaluate(make_config(), tmp_path)


@pytest.mark.parametrize('name, value, message', [
    ('NEEDS', ('decodr',), "did you mean 'decoder'"),
    ('HEAD', ('clasifier', 'num_labels'), 'heads/clasifier.py.*not there'),
    ('HEAD', ('classifier',), 'HEAD of classification .*allowed'),
    ('HEAD', 'classifier', 'HEAD of classification .*allowed'),
    ('HEAD', ('classifier', 'labels'), 'HEAD of classification .*allowed')])
def test_parts_that_there_are_not_are_refused(
    monkeypatch, name, value, message):
  monkeypatch.setattr(classification, name, value, raising=False)
  with pytest.raises(errors.UserError, match=message):
    config_lib.check(make_config())


def test_what_cannot_be_trained_or_asked_is_refused(tmp_path, run):
  config = make_config()
  config.tasks.classification_labelled.options.num_labels = 2
  with pytest.raises(errors.UserError, match='num_labels is 2; allowed: 3'):
    train.train_and_evaluate(config, tmp_path / 'run')
  del config.tasks.classification_labelled.options.num_labels
  for options, shown in (({}, 'missing'), ({'num_labels': 0}, '0'),
                         ({'num_labels': 2.5}, '2.5'),
                         ({'num_labels': 'two'}, "'two'")):
    config.tasks.classification_labelled.options = options
    with pytest.raises(errors.UserError, match=f'num_labels is {shown}; al'):
      config_lib.check(config)
  with pytest.raises(errors.UserError, match="'xvnli'; allowed for retrieval"):
    retrieval.evaluate(make_config(evaluation__protocol='xvnli'), run)


def test_an_accuracys_interval_draws_pictures():
  right = np.array([1, 1, 1, 0, 0, 0])
  alone = statistics.accuracy(right, np.arange(6))
  pairs = statistics.accuracy(right, np.array([0, 0, 0, 1, 1, 1]))
  assert alone.value == pairs.value == 50
  # Two pictures: all right, half or none.
  assert (pairs.low, pairs.high) == (0, 100)
  assert alone.low > 0 and alone.high < 100
