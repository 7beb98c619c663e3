"""Text written token by token: what it must equal, and its scores."""

import dataclasses
import functools
import itertools
import json
import pathlib
import random
import re
import subprocess

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from input_pipeline import errors
from input_pipeline import records
from m3p_jax import batch as batch_lib
from m3p_jax import checkpoint
from m3p_jax import search
from m3p_jax.convert import importing
from m3p_jax.generation import decoding
from m3p_jax.generation import scores
from m3p_jax.model import m3p
from m3p_jax.objectives import captioning
from m3p_jax.objectives import parallel
from m3p_jax.serve import finder
from tests import compiler
from tests import models
from tests import toy
from tests import weight_files

ROOT = pathlib.Path(__file__).parent.parent
# So few words that every text of four can be scored.
CONFIG = dataclasses.replace(
    models.TINY, vocab_size=9, decoder=True, width=16, embedding_dim=8)
WORDS = (2, 4, 5, 6, 7, 8)
LENGTH = 8


@functools.cache
def model():
  """Returns (module, params) of which some texts end early, some never."""
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(CONFIG, key)))(
      jax.random.key(0))
  return m3p.M3P(CONFIG), params | {
      'token_bias': params['token_bias'].at[2].set(2.0),
      'tokens': {'embedding': params['tokens']['embedding'] * 2}}


def rows(count=6):
  regions = models.batch(rows=count).regions
  # A padded region, and another language for every other picture.
  regions = regions._replace(mask_BR=regions.mask_BR.at[0, -1].set(False))
  return decoding.Rows(regions, np.arange(count, dtype=np.int32) % 2,
                       np.arange(count, dtype=np.uint32))


_write = jax.jit(decoding.write, static_argnums=(0, 3))


def write(settings, given=None, module=None):
  return jax.tree.map(np.asarray, _write(
      module or model()[0], model()[1], given or rows(), settings))


def log_probs(given, ids_BL, module=None):
  """Returns [B, L, V] of whole texts, nothing kept: the path of training."""
  return np.asarray(_log_probs(
      module or model()[0], model()[1], given, ids_BL))


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(module, params, given, ids_BL):

  def run(model):
    memory = parallel.memory(
        model, given.regions, given.extra, given.language_B)
    return model.token_logits(model.decode(
        ids_BL, jnp.ones(ids_BL.shape, bool), memory, given.language_B))

  logits = nn.apply(run, module)({'params': params})
  allowed = np.isin(np.arange(logits.shape[-1]), WORDS)
  return jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))


def greedy(given, module):
  """Returns [B, L] ids, each token chosen after a pass over all before it."""
  count = len(given.seed_B)
  ids_BL = np.full((count, LENGTH), 1, np.int32)
  ids_BL[:, 0] = 0
  for position in range(LENGTH - 1):
    best = log_probs(given, ids_BL, module)[:, position].argmax(-1)
    done = (ids_BL == 2).any(1)
    ids_BL[:, position + 1] = np.where(done, 1, best)
  return ids_BL


@pytest.mark.parametrize('read', ['picture', 'text', 'both', 'empty text'])
def test_beam_of_one_is_greedy_and_what_is_kept_changes_nothing(read):
  given = rows()
  module = m3p.M3P(dataclasses.replace(
      CONFIG, joint_memory=read == 'empty text'))
  if read in ('text', 'both'):
    source = np.array([[0, 4, 5, 2, 1]] * 3 + [[0, 8, 6, 7, 2]] * 3, np.int32)
    given = given._replace(
        regions=given.regions if read == 'both' else None,
        extra={'source_ids_BL': source, 'source_mask_BL': source != 1,
               'source_language_B': np.zeros(6, np.int32)})
  written = write(decoding.Settings(max_length=LENGTH), given, module)
  expected_BL = greedy(given, module)
  np.testing.assert_array_equal(written.token_ids_BKL[:, 0], expected_BL)
  # Texts of several lengths are compared, one without an end among them.
  assert len({int((row != 1).sum()) for row in expected_BL}) > 1


@pytest.mark.parametrize('penalty', [0.0, 1.0])
def test_widest_beam_finds_the_best_of_all_texts(penalty):
  given = rows(3)
  texts = [list(words) + [2] for n in range(3)
           for words in itertools.product(WORDS[1:], repeat=n)]
  texts += [list(words) for words in itertools.product(WORDS[1:], repeat=3)]
  settings = decoding.Settings(
      num_beams=64, length_penalty=penalty, max_length=4)
  written = write(settings, given)
  for row in range(3):
    one = jax.tree.map(
        lambda x, row=row: jnp.repeat(x[row:row + 1], len(texts), 0), given)
    ids = np.full((len(texts), 4), 1, np.int32)
    for number, text in enumerate(texts):
      ids[number, :1 + len(text)] = [0, *text]
    found = log_probs(one, ids)
    scores = [sum(found[number, i, token] for i, token in enumerate(text))
              / ((5 + len(text)) / 6) ** penalty
              for number, text in enumerate(texts)]
    best = int(np.argmax(scores))
    np.testing.assert_array_equal(written.token_ids_BKL[row, 0], ids[best])
    np.testing.assert_allclose(written.score_BK[row, 0], scores[best],
                               rtol=1e-4)


def test_drawn_texts_are_the_rows_own():
  settings = decoding.Settings(temperature=1.5, num_beams=3, max_length=LENGTH)
  written = write(settings)
  # Alone, a picture's texts are those that it has among others.
  some = jax.tree.map(lambda x: x[2:4], rows())
  np.testing.assert_array_equal(
      write(settings, some).token_ids_BKL, written.token_ids_BKL[2:4])
  other = write(settings, rows()._replace(seed_B=rows().seed_B + 9))
  assert (other.token_ids_BKL != written.token_ids_BKL).any()
  assert (np.diff(written.score_BK) <= 0).all()


def test_captions_learned_by_heart_are_written_by_picture_and_language():
  module, params = model()
  row_B, language_B = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1], np.int32)
  ids_BL = np.array([[0, 4, 5, 6, 2, 1], [0, 7, 8, 2, 1, 1],
                     [0, 5, 5, 4, 8, 2], [0, 6, 2, 1, 1, 1]], np.int32)
  given = decoding.Rows(jax.tree.map(lambda x: x[row_B], rows().regions),
                        language_B, np.arange(4, dtype=np.uint32))
  batch = batch_lib.Batch(ids_BL, ids_BL != 1, language_B, given.regions)
  tx = optax.adam(1e-2)

  def loss(params):
    return nn.apply(lambda model: captioning.loss(
        model, batch, jax.random.key(0)), module)({'params': params})[0]

  def step(carry, _):
    params, state = carry
    updates, state = tx.update(
        jax.grad(lambda params: loss(params).compute())(params), state)
    return (optax.apply_updates(params, updates), state), None

  params = jax.jit(lambda params: jax.lax.scan(
      step, (params, tx.init(params)), length=200)[0][0])(params)
  for settings in (decoding.Settings(max_length=LENGTH),
                   decoding.Settings(num_beams=3, max_length=LENGTH)):
    written = _write(module, params, given, settings)
    np.testing.assert_array_equal(
        written.token_ids_BKL[:, 0],
        np.pad(ids_BL, ((0, 0), (0, LENGTH - 6)), constant_values=1))


def test_next_to_nothing_of_the_probability_is_the_likeliest_token():
  settings = decoding.Settings(temperature=1.0, top_p=1e-6, max_length=LENGTH)
  np.testing.assert_array_equal(
      write(settings).token_ids_BKL,
      write(decoding.Settings(max_length=LENGTH)).token_ids_BKL)


def test_tokens_are_drawn_among_the_likeliest_as_often_as_they_should():
  log_prob_BKV = jnp.log(jnp.asarray([[[0.5, 0.3, 0.15, 0.05]]]))
  draw = functools.partial(
      decoding._draw, jnp.repeat(log_prob_BKV, 4000, 0),
      jnp.arange(4000, dtype=jnp.uint32), 1)
  # 0.5 is less than 0.7, and with 0.3 it is more: two tokens.
  counts = np.bincount(np.ravel(draw(decoding.Settings(
      temperature=1.0, top_p=0.7))), minlength=4)
  np.testing.assert_allclose(
      counts / 4000, [5 / 8, 3 / 8, 0, 0], atol=0.03)
  # At half the temperature, odds are squared.
  counts = np.bincount(np.ravel(draw(decoding.Settings(
      temperature=0.5))), minlength=4)
  squares = np.square([0.5, 0.3, 0.15, 0.05])
  np.testing.assert_allclose(
      counts / 4000, squares / squares.sum(), atol=0.03)


_ON_DEVICES = '''
import numpy as np
from m3p_jax.evaluation import engine
from m3p_jax.generation import decoding
from tests import test_generation as made
module, params = made.model()
for settings in made.SETTINGS:
  written = engine.Engine(
      params, made.CONFIG, batch_size=8, dtype='float32').write(
          made.rows(10).regions, settings, language=1)
  print(written.token_ids_BKL.tolist())
'''
SETTINGS = (decoding.Settings(num_beams=3, max_length=LENGTH),
            decoding.Settings(temperature=1.0, max_length=LENGTH))


def test_eight_devices_write_what_one_does(python):
  one, eight = (
      subprocess.run([python, '-c', _ON_DEVICES], text=True, check=True,
                     env=compiler.environment(devices), capture_output=True)
      for devices in (1, 8))
  assert eight.stdout == one.stdout
  assert len(one.stdout.splitlines()) == 2


def test_cider_of_two_pictures_by_hand():
  references = [['a red dog', 'one dog'], ['the cat sleeps']]
  # Of both pictures each n-gram is in one alone: all weigh log 2, and cosines
  # are those of counts. "a red dog" against itself: n = 1, 2, 3 have cosine 1,
  # n = 4 has nothing, so that 3/4 are reached.
  first = 10 * 3 / 4
  # Against "one dog", a word longer: one word of 3 and of 2 is shared.
  second = 10 * (1 / np.sqrt(3 * 2)) / 4 * np.exp(-1 / (2 * 6 ** 2))
  found = scores.cider(['A red dog.', 'the cat'], references)
  # "the cat": 2 of 3 words, 1 of 2 pairs, and a word too short.
  third = 10 * (2 / np.sqrt(2 * 3) + 1 / np.sqrt(1 * 2)) / 4 * np.exp(
      -1 / (2 * 6 ** 2))
  np.testing.assert_allclose(found, [(first + second) / 2, third])


def test_cider_gains_nothing_by_repetition_or_by_what_every_picture_has():
  references = [['dog on grass'], ['cat on sofa']]
  # Of three words one is right as often as its reference has it: 2 · 1 for
  # the clipped product, √(9 + 0) and √2 for the lengths; "on" weighs nothing.
  (found, other) = scores.cider(['dog dog dog', 'on on on'], references)
  np.testing.assert_allclose(found, 10 / 4 / (3 * np.sqrt(2)))
  assert other == 0


def test_bleu_takes_pictures_with_fewer_references():
  pytest.importorskip('sacrebleu', reason='optional: requirements-metrics.txt')
  texts = ['A red dog runs on the grass', 'the cat sleeps on a sofa']
  score, signature = scores.bleu(
      texts, [[texts[0].lower(), 'a dog'], [texts[1]]])
  assert score == pytest.approx(100)
  assert 'case:lc' in signature


def test_golden_weights_write_by_three_commands(tmp_path, python):
  """As typed: M3P's file, a few steps of captioning, captions."""
  toy.write(tmp_path / 'data' / 'captioned', records.image_text_features(2048),
            {split: [_picture(number) for number in range(count)]
             for split, count in (('train', 12), ('test', 3))})
  environment = compiler.environment(1)

  def run(*command):
    done = subprocess.run(
        [python, *command], cwd=ROOT, env=environment, text=True,
        capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done

  weights, workdir = tmp_path / 'weights', tmp_path / 'run'
  run('-m', 'm3p_jax.convert', 'import', '--from=m3p',
      f'--path={weight_files.M3P}', f'--out={weights}')
  assert not checkpoint.load(weights)[1].decoder
  train = run(
      'main.py', '--config=configs/captioning.py', f'--workdir={workdir}',
      f'--config.init_from={weights}',
      f'--config.data.data_dir={tmp_path / "data"}',
      '--config.data.image_text.datasets=captioned',
      '--config.tasks.captioning.batch_size=4', '--config.num_train_steps=2',
      '--config.fit_first_values=false', '--config.eval_batches=0',
      '--config.model.joint_memory=false')
  assert re.search(
      r'fresh +encoder/cross_attention: 8,448 numbers, kept aside by the '
      r'import\n +encoder/cross_attention_norm: 128', train.stderr)
  # Two steps at almost no rate: the decoder is the file's.
  theirs, _ = importing.read('m3p', weight_files.M3P, complete=True)[:2]
  ours, config, _ = checkpoint.load(workdir)
  assert config.decoder
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3),
      ours['encoder']['cross_attention'],
      jax.tree.map(np.asarray, theirs['encoder']['cross_attention']))
  done = run(
      'main.py', f'--workdir={workdir}', '--mode=generate',
      '--config.evaluation.dataset=captioned', '--config.generate.language=en',
      '--config.evaluation.split=test', '--config.generate.max_length=6')
  assert 'CIDEr-D' in done.stdout
  path = workdir / 'captions' / 'captioned_test.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert sorted(line['image'] for line in lines) == [
      f'picture {number}' for number in range(3)]
  assert all(line['references'] == ['red dog'] for line in lines)
  assert json.loads(path.with_suffix('.json').read_text())[
      'languages']['en']['with_references'] == 3
  # Into a folder that is not there yet, the same.
  run('main.py', f'--config={workdir}/config.json',
      f'--workdir={tmp_path}/new/run', '--mode=generate',
      f'--config.init_from={workdir}', '--config.generate.language=en',
      '--config.evaluation.dataset=captioned', '--config.evaluation.split=test',
      '--config.generate.max_length=6')
  assert (tmp_path / 'new' / 'run' / 'captions' / path.name
          ).read_text() == path.read_text()
  searcher = search.load(workdir, data_dir=tmp_path / 'data',
                         dataset='captioned', split='test')
  found = searcher.describe('picture 0', ['en'], 3, write=True)['en']
  assert len({one.text for one in found}) == 3
  assert found == sorted(found, key=lambda one: -one.score)
  # The page shows the best, before it reads the collection's captions (which
  # these weights' small vocabulary has no rows for).
  shown = finder.Finder(searcher).show(searcher.index.key(0), '', ['en'])
  detail = next(part['detail'] for part in shown
                if '<h3>In words</h3>' in part['detail'])
  best, *_ = searcher.describe('picture 0', ['en'], 4, write=True)['en']
  assert f'lang="en" title="English">{best.text}</span>' in detail
  with pytest.raises(errors.UserError, match='weights cannot write: '):
    search.load(weights).describe('picture 0', ['en'], write=True)
  refused = subprocess.run(
      [python, 'main.py', f'--workdir={workdir}', '--mode=generate',
       '--config.generate.language=de'], cwd=ROOT, env=environment, text=True,
      capture_output=True, check=False)
  assert "generate.language 'de'" in refused.stderr, refused.stderr


def _picture(number):
  return toy._picture(random.Random(0), number, ()) | {
      'features': np.full((4, 2048), number, np.float16),
      'group': f'group {number}',
      'captions': toy.caption_record([('en', 'red dog')])}
