"""The exact engine: naive scores, whatever is skipped, split or killed."""

import os
import subprocess

from flax import linen as nn
import jax
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import exact
from m3p_jax.model import m3p
from tests import compiler
from tests import exact_scores


def naive(params, config, regions, texts):
  """Returns [C, I] by one plain forward pass a pair."""

  def match(model, picture, token_ids_1L, text_mask_1L):
    return model.match_logits(model.encode(batch_lib.Batch(
        token_ids_1L, text_mask_1L, None, picture), deterministic=True))

  step = jax.jit(nn.apply(match, m3p.M3P(config)))
  return np.array([[
      step({'params': params}, jax.tree.map(lambda x, i=i: x[i:i + 1], regions),
           texts.token_ids_CL[c:c + 1], texts.text_mask_CL[c:c + 1])[0]
      for i in range(len(regions.mask_BR))]
                   for c in range(len(texts.token_ids_CL))])


@pytest.fixture(scope='module')
def alone():
  """Returns the scores of one device, kept in memory."""
  return exact_scores.score()


def test_scores_equal_naive_passes_one_pair_at_a_time(alone):
  for name, question in exact_scores.questions().items():
    expected_CI = naive(exact_scores.params(), exact_scores.CONFIG,
                        exact_scores.regions(), question.texts)
    found_CI = alone[name][:, question.pictures_I]
    assert expected_CI.std() > 0.01
    np.testing.assert_allclose(
        found_CI, expected_CI[:, question.pictures_I], atol=1e-5)
    not_asked = np.setdiff1d(np.arange(21), question.pictures_I)
    assert np.isnan(alone[name][:, not_asked]).all()


def pieces(folder):
  return {str(path.relative_to(folder)): path.stat().st_mtime_ns
          for path in folder.rglob('piece_*.npy')}


def test_killed_and_resumed_equals_uninterrupted(
    alone, tmp_path, monkeypatch):
  replace, written = os.replace, []

  def die_or_replace(source, target):
    written.extend([target] if str(target).endswith('.npy') else [])
    if len(written) == 3:
      raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(os, 'replace', die_or_replace)
  with pytest.raises(KeyboardInterrupt):
    exact_scores.score(tmp_path)
  monkeypatch.undo()
  # Two pieces are whole, the third is a draft that nothing reads.
  before = pieces(tmp_path)
  assert len(before) == 2 and list(tmp_path.rglob('.piece_*'))
  resumed = exact_scores.score(tmp_path)
  after = pieces(tmp_path)
  assert len(after) == 7
  assert before.items() <= after.items()
  for name, scores_CI in alone.items():
    np.testing.assert_array_equal(resumed[name], scores_CI)
  # Nothing is left to do, and the matrix is there without a model.
  assert exact_scores.score(tmp_path)['en'].shape == (11, 21)
  assert pieces(tmp_path) == after


def test_two_hosts_of_four_devices_equal_one_device(python, alone, tmp_path):
  port = compiler.free_address().rpartition(':')[2]
  processes = [subprocess.Popen(
      [python, '-m', 'tests.exact_scores', str(tmp_path), str(host),
       str(port)], env=compiler.environment(4), text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for host in range(2)]
  for process in processes:
    output, _ = process.communicate()
    assert process.returncode == 0, output
  found = exact_scores.score(tmp_path)
  for name, scores_CI in alone.items():
    np.testing.assert_allclose(found[name], scores_CI, atol=1e-5)


def test_scores_of_something_else_are_not_mixed_in(tmp_path):
  exact_scores.score(tmp_path)
  before = pieces(tmp_path)
  with pytest.raises(errors.UserError, match=(
      r'manifest\.json.*another weights \("of seed 2", now "of seed 3"\)')):
    exact_scores.score(tmp_path, {'weights': 'of seed 3'})
  (tmp_path / 'de' / 'piece_0000.npy').write_bytes(b'cut off')
  with pytest.raises(errors.UserError, match=r'piece_0000\.npy.*delete it'):
    exact_scores.score(tmp_path)
  assert pieces(tmp_path).keys() == before.keys()


def test_nothing_to_search_and_broken_weights_are_told():
  engine, regions = exact_scores.engine(), exact_scores.regions()
  questions = exact_scores.questions()
  with pytest.raises(errors.UserError, match='de: 7 captions and 0 pictures'):
    exact.scores(engine, regions, {
        'de': questions['de']._replace(pictures_I=np.arange(0))})
  with pytest.raises(errors.UserError, match='gallery is empty'):
    exact.scores(engine, jax.tree.map(lambda x: x[:0], regions), questions)
  features_BRF = np.array(regions.features_BRF)
  features_BRF[3] = np.nan
  with pytest.raises(errors.UserError, match='picture 3 is NaN'):
    exact.scores(engine, regions._replace(features_BRF=features_BRF),
                 questions)


def test_pieces_cover_every_picture_once():
  counts_I = np.array([3, 5, 5, 1] * 25)
  pictures_I = np.arange(1, 100)
  blocks = exact.cut(pictures_I, np.arange(5) < counts_I[:, np.newaxis],
                     num_captions=300)
  # 4,096 pairs at most where there are few: 13 pictures of 300 captions.
  assert {len(block) for block in blocks} == {12, 13}
  np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), pictures_I)
  # Pictures with as many regions go together.
  assert (np.diff(counts_I[np.concatenate(blocks)]) <= 0).all()
  # And a thousandth of them where there are many.
  assert len(exact.cut(np.arange(5_000), np.ones((5_000, 1), bool),
                       num_captions=25_000)) == 1_000
