"""Properties of the stream of batches, on made-up records."""

import functools

import jax
import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from configs import base
from input_pipeline import errors
from input_pipeline import pipeline
from input_pipeline import store
from tests import toy

TASKS = ml_collections.ConfigDict({
    'xmlm': base.task_config('masked_lm', 'text', 6),
    'mc_mlm': base.task_config('masked_lm', 'image_text', 8),
    'mc_vlm': base.task_config('matching', 'image_text', 8)})
FEW = ml_collections.ConfigDict({'mc_mlm': TASKS.mc_mlm})
RECORDS = {'image_text.memory_bytes': 0}
PACKED = {'image_text.datasets': ('packed',), 'image_text.languages': ('en',)}
PAIRS = {'image_text.datasets': ('pairs',), 'image_text.alpha': 1.0}


def _config(**changes):
  data = base.get_config().data
  data.data_dir = str(toy.data_dir())
  data.languages = toy.LANGUAGES
  data.text.datasets = ('sentences',)
  data.text.languages = ('en', 'de')
  data.text.max_length = 16
  data.image_text.datasets = ('pairs', 'english')
  data.image_text.languages = toy.LANGUAGES
  data.image_text.max_length = 24
  switch = data.image_text.code_switch
  switch.rate = 0.5
  switch.languages = ('de', 'fr')
  data.update_from_flattened_dict(changes)
  return data


@functools.cache
def _streams(changes):
  return pipeline.Streams(_config(**dict(changes)), TASKS, split='train')


def _take(num, tasks=FEW, changes=None, *, skip=0, seed=1, **options):
  """Returns batches of streams that are read once for all tests."""
  dataset = _streams(tuple((changes or {}).items())).dataset(
      tasks, seed=seed, **options)
  return _next(iter(dataset.skip(skip)), num)


def _next(iterator, num):
  return [_numpy(next(iterator)) for _ in range(num)]


def _numpy(batch):
  # Not `tf.nest`, which takes None for a leaf.
  return jax.tree.map(np.asarray, batch)


def _assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def _texts(batches, task='mc_mlm'):
  return [toy.decode(row) for batch in batches
          for row in batch[task].token_ids_BL]


def test_shapes_and_types():
  (batch,) = _take(1, TASKS)
  assert set(batch) == {'xmlm', 'mc_mlm', 'mc_vlm'}
  assert batch['xmlm'].regions is None
  assert batch['xmlm'].token_ids_BL.shape == (6, 16)
  rows = batch['mc_mlm']
  assert rows.token_ids_BL.shape == rows.text_mask_BL.shape == (8, 24)
  assert rows.regions.features_BRF.shape == (8, 4, toy.FEATURE_DIM)
  assert rows.regions.boxes_BRG.shape == (8, 4, 5)
  assert [x.dtype for x in (*rows[:3], *rows.regions)] == [
      np.int32, bool, np.int32, np.int32, np.float16, np.float32, np.int32,
      bool]


@pytest.mark.parametrize('changes', [
    {'text.concatenate': True, 'image_text.code_switch.rate': 0.0},
    {'image_text.code_switch.mode': 'one',
     'image_text.code_switch.language_per': 'word'},
    RECORDS, RECORDS | PACKED])
def test_every_shape_is_known_before_a_row_is_read(changes):
  # A step is compiled from them. And no Python op is in the graph.
  dataset = _streams(tuple(changes.items())).dataset(TASKS, seed=1)
  assert b'PyFunc' not in dataset._as_serialized_graph().numpy()
  (batch,) = _next(iter(dataset), 1)
  for name in TASKS:
    known = [spec.shape for spec in jax.tree.leaves(dataset.element_spec[name])
             if isinstance(spec, tf.TensorSpec)]
    assert known == [x.shape for x in jax.tree.leaves(batch[name])]


@pytest.mark.parametrize('changes', [{}, RECORDS])
def test_resumes_exactly_in_mid_epoch(tmp_path, changes):
  # 80 pictures a pass: 13 batches of 8 end within the second one.
  iterator = iter(_streams(tuple(changes.items())).dataset(TASKS, seed=1))
  _next(iterator, 13)
  path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / 'data'))
  # A counter, and no rows that were read ahead.
  assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 10_000
  wanted = _next(iterator, 5)
  resumed = iter(pipeline.build(_config(**changes), TASKS, seed=1))
  tf.train.Checkpoint(iterator=resumed).read(path)
  _assert_equal(_next(resumed, 5), wanted)


def test_a_step_needs_no_steps_before_it():
  _assert_equal(_take(1, skip=6), _take(7)[-1:])


def test_equal_seeds_give_equal_streams():
  first, again, other = (_take(4, seed=seed) for seed in (1, 1, 2))
  _assert_equal(first, again)
  assert _texts(first) != _texts(other)


def test_tasks_on_one_stream_have_different_rows():
  batches = _take(3, TASKS)
  assert _texts(batches, 'mc_mlm') != _texts(batches, 'mc_vlm')


def test_hosts_share_each_batch():
  (whole,) = _take(1, switches=False)
  parts = [_take(1, switches=False, shard_index=i, num_shards=2)[0]
           for i in range(2)]
  _assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *parts), whole)


def test_switching_shows_capitals_and_keeps_lengths():
  english = {'image_text.languages': ('en',),
             'image_text.code_switch.rate': 1.0}
  plain, switched = (_take(4, changes=english, switches=switches)
                     for switches in (False, True))
  for before, after in zip(_texts(plain), _texts(switched), strict=True):
    assert before == before.lower()
    assert any(word in before for word in toy.TRANSLATABLE) == (
        after != after.lower())
  for batch in switched:
    rows = batch['mc_mlm']
    assert rows.token_ids_BL.shape == (8, 24)
    np.testing.assert_array_equal(rows.text_mask_BL, rows.token_ids_BL != 1)
  _assert_equal([batch['mc_mlm'].regions for batch in plain],
                [batch['mc_mlm'].regions for batch in switched])


def test_languages_follow_alpha_and_pictures_their_captions():
  batches = _take(150, changes=PAIRS, switches=False)
  language = np.concatenate([b['mc_mlm'].language_B for b in batches])
  # 60 pictures, all with English, 40 with the other two.
  np.testing.assert_allclose(np.bincount(language) / len(language),
                             np.array([60, 40, 40]) / 140, atol=0.03)
  picture = np.concatenate(
      [b['mc_mlm'].regions.features_BRF[:, 0, 0] for b in batches])
  assert set(picture[language == 1]) == {i for i in range(60) if i % 3}
  assert set(picture[language == 0]) == set(range(60))


def test_validation_is_finite_unswitched_and_always_the_same():
  found = [list(pipeline.Streams(
      _config(), FEW, split='validation', switches=False).dataset(
          FEW, seed=0, steps=3).as_numpy_iterator()) for _ in range(2)]
  assert len(found[0]) == 3
  _assert_equal(*found)
  assert all(text == text.lower() for text in _texts(found[0]))


@pytest.mark.parametrize('changes, words', [
    ({'image_text.datasets': ('pair',)}, ("'pair'", "'pairs'")),
    ({'image_text.languages': ('en', 'dee')}, ("'dee'", "'de'")),
    ({'image_text.datasets': ('english',)}, ('de, fr', 'they have en')),
    ({'image_text.datasets': ('pairs', 'english'),
      'image_text.languages': ('de',)}, ("'english'", 'it has en')),
    ({'image_text.datasets': ()}, ('image_text.datasets',)),
    ({'image_text.code_switch.languages': ('it',)}, ("'it'", 'de, fr')),
    ({'image_text.code_switch.languages': ()}, ('code_switch.languages',)),
    ({'image_text.code_switch.mode': 'two'}, ("'two'", 'every, one')),
    ({'languages': ('it',), 'image_text.languages': ('all',)},
     ("'pairs' has nothing in it;", 'de, en, fr'))])
def test_a_users_mistake_names_what_is_right(changes, words):
  with pytest.raises(errors.UserError) as error:
    pipeline.build(_config(**changes), FEW, seed=1)
  for word in words:
    assert word in str(error.value)


def test_batches_that_hosts_cannot_share_are_refused():
  with pytest.raises(errors.UserError, match=r'multiple of .* 3'):
    _take(1, num_shards=3)


def test_all_languages_are_those_that_there_are(caplog):
  alls = {f'{name}.languages': ('all',)
          for name in ('text', 'image_text', 'image_text.code_switch')}
  _assert_equal(_take(2, TASKS, alls), _take(2, TASKS))
  assert 'left out' not in caplog.text
  pipeline.build(_config(languages=('en', 'fr'), **alls), TASKS, seed=1)
  assert 'left out of sentences: de' in caplog.text


def test_tasks_share_rows_if_they_say_so(monkeypatch):
  tasks = TASKS.copy_and_resolve_references()
  for task, size in ((tasks.mc_mlm, 8), (tasks.mc_vlm, 4)):
    task.update(dict(rows='shared', batch_size=size))
  hosts = [_take(2, tasks, RECORDS, switches=False, shard_index=i,
                 num_shards=2)[1] for i in range(2)]
  whole = _take(2, tasks, RECORDS, switches=False)[1]
  _assert_equal(whole['mc_vlm'], jax.tree.map(
      lambda x: x[::2], whole['mc_mlm']))
  _assert_equal(
      jax.tree.map(lambda *x: np.concatenate(x), *hosts), whole)
  # A picture is read once for both.
  makers, read = _streams(tuple(RECORDS.items()))._makers, []
  monkeypatch.setitem(makers, 'image_text', lambda rows_B, *args, make=makers[
      'image_text']: read.append(rows_B.shape[0]) or make(rows_B, *args))
  _take(1, tasks, RECORDS)
  assert read == [8]
  tasks.mc_vlm.batch_size = 6
  with pytest.raises(errors.UserError, match='divides the 8 rows'):
    _take(1, tasks)


@pytest.mark.parametrize('changes', [{}, PACKED], ids=['float16', 'int8'])
def test_rows_read_from_records_are_those_from_memory(changes):
  _assert_equal(_take(5, changes=changes | RECORDS), _take(5, changes=changes))


def _pictures_by_language(shots):
  found = {}
  for batch in _take(40, changes=PAIRS | {'image_text.shots': shots}):
    rows = batch['mc_mlm']
    for language, features_RF in zip(
        rows.language_B, rows.regions.features_BRF, strict=True):
      found.setdefault(int(language), set()).add(float(features_RF[0, 0]))
  return found


@pytest.mark.parametrize('records', [{}, RECORDS])
def test_captions_that_training_cuts_are_counted(caplog, records):
  pairs = records | {
      'image_text.datasets': ('pairs',), 'image_text.languages': ('de',)}
  pipeline.build(_config(**pairs, **{'image_text.max_length': 100}), FEW,
                 seed=1)
  assert 'not trained on' not in caplog.text
  pipeline.build(_config(**pairs, **{'image_text.max_length': 12}), FEW, seed=1)
  _, captions = store.read_image_text(toy.data_dir(), 'pairs', 'train')
  lengths = [len(text.replace(' ', '')) for text, language in zip(
      captions.texts, captions.languages, strict=True) if language == 'de']
  count = sum(length > 10 for length in lengths)
  assert (f'{count} of {len(lengths)} texts have more than '
          'data.image_text.max_length = 12 ids') in caplog.text


def test_few_shots_are_the_same_pictures_in_every_language():
  few, more = _pictures_by_language(3), _pictures_by_language(6)
  assert {len(pictures) for pictures in few.values()} == {3}
  assert {len(pictures) for pictures in more.values()} == {6}
  # German and French captions are of the same pictures here.
  assert few[1] == few[2] < more[1] == more[2]
  assert few[0] < more[0]


# Kinds of rows, and data that a task has of its own.

KINDS = ml_collections.ConfigDict({
    'classes': base.task_config('classification', 'labelled', 6, data=dict(
        datasets=('labelled',), languages=('en', 'de'), max_length=20)),
    'shots': base.task_config('classification', 'labelled', 6, data=dict(
        datasets=('labelled',), languages=('de',), train_split='train_5')),
    'twins': base.task_config('classification', 'pair', 6, data=dict(
        datasets=('twins',), languages=('en',))),
    'vtlm': base.task_config('masked_lm', 'parallel', 6, data=dict(
        datasets=('pairs',), sources=('en', 'de'))),
    'tlm': base.task_config('masked_lm', 'parallel', 6, data=dict(
        datasets=('translated',), languages=('de', 'fr'),
        code_switch=dict(rate=1.0)))})
KINDS.mc_mlm = TASKS.mc_mlm


@functools.cache
def _kinds():
  return pipeline.Streams(_config(**{'image_text.code_switch.rate': 0.0}),
                          KINDS, split='train')


def _rows(name, steps=4, **options):
  dataset = _kinds().dataset(
      ml_collections.ConfigDict({name: KINDS[name]}), seed=1, **options)
  return [batch[name] for batch in _next(iter(dataset), steps)]


def _captions(dataset, split='train'):
  """Returns {text without spaces: its captions' (picture, language, label)}."""
  found = {}
  builder = store.open_builder(toy.data_dir(), dataset, split)
  for row in builder.as_dataset(split).as_numpy_iterator():
    captions = row['captions']
    for i, text in enumerate(captions['text']):
      found.setdefault(text.decode().replace(' ', ''), set()).add((
          row['image_id'].decode(), captions['language'][i].decode(),
          int(captions['label'][i]) if 'label' in captions else None))
  return found


def test_tasks_of_one_run_read_different_data():
  shape = {name: _next(iter(_kinds().dataset(KINDS, seed=1)), 1)[0][
      name].token_ids_BL.shape[1] for name in KINDS}
  assert shape['classes'] == 20 and shape['mc_mlm'] == shape['twins'] == 24
  # What has no data of its own reads what it did, row by row.
  own = _kinds().dataset(FEW, seed=1)
  _assert_equal(_next(iter(own), 3),
                _take(3, changes={'image_text.code_switch.rate': 0.0}))


def test_a_label_goes_with_its_caption():
  known = _captions('labelled')
  for batch in _rows('classes'):
    for row, language, label in zip(
        batch.token_ids_BL, batch.language_B, batch.extra['label_B'],
        strict=True):
      texts = [text for text in known if text[:18] == toy.decode(row)]
      assert any(one[1:] == (toy.LANGUAGES[language], label)
                 for text in texts for one in known[text])
  assert batch.extra['label_B'].dtype == np.int32
  # A split of few shots has five pictures, and German texts were asked for.
  few = _rows('shots', 10)
  pictures = {float(x) for b in few for x in b.regions.features_BRF[:, 0, 0]}
  assert pictures == set(range(5))
  assert {int(x) for b in few for x in b.language_B} == {1}


def test_a_pair_has_its_second_picture():
  for batch in _rows('twins'):
    first, second = batch.regions, batch.extra['second']
    # As many regions as either has, the shorter one padded.
    assert first.mask_BR.shape == second.mask_BR.shape == (6, 4)
    np.testing.assert_array_equal(second.mask_BR.sum(1), 3)
    np.testing.assert_array_equal(
        second.features_BRF[:, 0, 0], 90 - first.features_BRF[:, 0, 0])


@pytest.mark.parametrize('name, dataset', [
    ('vtlm', 'pairs'), ('tlm', 'translated')])
def test_parallel_texts_are_of_one_item_in_two_languages(name, dataset):
  known, languages = _captions(dataset), set()
  for batch in _rows(name, 8, switches=False):
    assert (batch.regions is None) == (name == 'tlm')
    for target, source, *pair in zip(
        batch.token_ids_BL, batch.extra['source_ids_BL'], batch.language_B,
        batch.extra['source_language_B'], strict=True):
      found = [{(picture, language) for text, where in known.items()
                if text[:22] == toy.decode(row)
                for picture, language, _ in where}
               for row in (target, source)]
      one, other = (toy.LANGUAGES[number] for number in pair)
      assert one != other
      assert any((picture, other) in found[1]
                 for picture, language in found[0] if language == one)
      languages.add((one, other))
  wanted = {('de', 'en'), ('fr', 'en')}
  assert languages == wanted if name == 'tlm' else languages == wanted | {
      ('en', 'de'), ('fr', 'de')}


def test_a_task_has_its_own_code_switching():
  (plain,), (switched,) = (_rows('tlm', 1, switches=switches)
                           for switches in (False, True))
  before, after = (''.join(map(toy.decode, batch.extra['source_ids_BL']))
                   for batch in (plain, switched))
  assert before == before.lower() and after != after.lower()
  # Only English is: the targets are German and French.
  np.testing.assert_array_equal(plain.token_ids_BL, switched.token_ids_BL)


def test_kinds_resume_exactly_and_their_shapes_are_known(tmp_path):
  dataset = _kinds().dataset(KINDS, seed=1)
  assert b'PyFunc' not in dataset._as_serialized_graph().numpy()
  iterator = iter(dataset)
  (batch,) = _next(iterator, 1)
  for name in KINDS:
    known = [spec.shape for spec in jax.tree.leaves(dataset.element_spec[name])
             if isinstance(spec, tf.TensorSpec)]
    assert known == [x.shape for x in jax.tree.leaves(batch[name])]
  path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / 'data'))
  wanted = _next(iterator, 2)
  resumed = iter(_kinds().dataset(KINDS, seed=1))
  tf.train.Checkpoint(iterator=resumed).read(path)
  _assert_equal(_next(resumed, 2), wanted)
  parts = [_rows('vtlm', 1, switches=False, shard_index=i, num_shards=2)[0]
           for i in range(2)]
  _assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *parts),
                _rows('vtlm', 1, switches=False)[0])


@pytest.mark.parametrize('stream, data, words', [
    ('labelled', dict(datasets=('pairs',)), "'pairs' has no labels"),
    ('pair', dict(datasets=('labelled',)), 'has 1 pictures a row'),
    ('image_text', dict(datasets=('translated',)), 'has 0 pictures a row'),
    ('parallel', dict(datasets=('english',), languages=('en',)),
     'no text in en has another'),
    ('labelled', dict(datasets=('labelled',), train_split='train_1'),
     "'train_1'.*train_5")])
def test_data_that_a_kind_cannot_read_are_refused(stream, data, words):
  tasks = ml_collections.ConfigDict({
      'one': base.task_config('masked_lm', stream, 4, data=data)})
  with pytest.raises(errors.UserError, match=words):
    pipeline.Streams(_config(**{'image_text.languages': ('all',)}), tasks,
                     split='train')
