"""The engines agree with the model, and the modes with each other."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import nearest
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import rerank
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import weights as weights_lib
from tests import models
from tests import retrieval_data

DATA = retrieval_data.retrieval_set()
IDS = retrieval_data.LANGUAGE_IDS


def call(function):
  """Returns function(bound tiny model), compiled."""
  return jax.jit(lambda params: models.call(function, params=params))(
      models.tiny()[1])


def make_engine(batch_size):
  return engine_lib.Engine(models.tiny()[1], models.TINY, batch_size=batch_size,
                        dtype='float32')


def make_texts(language='en'):
  one = DATA.captions[language]
  return engine_lib.Texts(
      one.token_ids_NL, one.text_mask_NL,
      np.full(len(one.texts), IDS[language], np.int32))


def make_scorer(data=DATA, languages=('en', 'de'), language_ids=IDS):
  return scoring.Scorer(
      make_engine(64), data, languages, 'tux-paint', language_ids)


def evaluate(mode, **kwargs):
  return scoring.run(make_scorer(), mode=mode, **kwargs)


def test_vectors_equal_the_models_at_any_batch_size():
  texts = make_texts()
  images_IE = call(
      lambda m: m.embed_images(DATA.regions, deterministic=True))
  texts_CE = call(lambda m: m.embed_texts(*texts, deterministic=True))
  for batch_size in (3, 64):
    engine = make_engine(batch_size)
    np.testing.assert_allclose(
        engine.embed_images(DATA.regions), images_IE, atol=1e-5)
    np.testing.assert_allclose(engine.embed_texts(texts), texts_CE, atol=1e-5)


@pytest.mark.parametrize('batch_size', [4, 64])
def test_match_logits_equal_the_models(batch_size):
  texts = make_texts()
  image_P = np.array([0, 6, 2, 2, 5, 1])
  text_P = np.array([3, 0, 1, 5, 5, 0])
  logits_P = make_engine(batch_size).match(
      DATA.regions, texts, image_P, text_P)
  batch = batch_lib.Batch(
      texts.token_ids_CL[text_P], texts.text_mask_CL[text_P], None,
      retrieval_data.regions_of(DATA, image_P))
  expected_P = call(
      lambda m: m.match_logits(m.encode(batch, deterministic=True)))
  np.testing.assert_allclose(logits_P, expected_P, atol=1e-5)


def test_short_captions_are_cut_to_their_length():
  lengths = [length for length, _ in make_engine(1)._by_length(
      make_texts(), np.zeros(9, int))]
  longest = DATA.captions['en'].text_mask_NL[0].sum()
  assert lengths == [min(x for x in (*engine_lib.LENGTHS, 24) if x >= longest)]


def test_rerank_of_everything_equals_joint():
  joint, reranked = evaluate('joint'), evaluate('rerank', top_k=99)
  assert joint.languages == reranked.languages
  assert joint.pairs_scored == reranked.pairs_scored == 7 * (6 + 5)


def test_dual_scores_no_pairs_and_rerank_few():
  assert evaluate('dual').pairs_scored == 0
  outcome = evaluate('rerank', top_k=1, joint_weight=1.0)
  # 11 captions and 7 + 5 pictures want one pair each, some the same.
  assert 11 <= outcome.pairs_scored <= 23
  assert outcome.pairs_scored == sum(
      cell['pairs_scored'] for cell in outcome.languages.values())


def test_the_choice_agrees_with_an_evaluation():
  choice = scoring.choose_rerank(
      make_scorer(), top_ks=(1, 3), joint_weights=(0.5, -1.0))
  for weight in (0.5, -1.0):
    found = evaluate('rerank', top_k=3, joint_weight=weight).languages
    assert choice.mean_recall[3][weight] == pytest.approx(
        np.mean([one['mean_recall'] for one in found.values()]))
  dual = np.mean([cell['mean_recall']
                  for cell in evaluate('dual').languages.values()])
  assert choice.top_k_curve[0] == pytest.approx(dual)


def test_a_language_without_captions_or_embedding_is_named():
  with pytest.raises(errors.UserError, match="'xx' has no captions"):
    make_scorer(languages=('xx',))
  with pytest.raises(errors.UserError, match=r"no embedding for.*'de'"):
    make_scorer(languages=('de',), language_ids={'en': 0})


@pytest.mark.parametrize('block', [1, 40, 2 ** 20])
def test_first_candidates_are_exact_in_any_blocks(block, monkeypatch):
  monkeypatch.setattr(nearest, '_BLOCK', block)
  rng = np.random.default_rng(0)
  queries_QE, gallery_NE = rng.normal(size=(7, 4)), rng.normal(size=(20, 4))
  gallery_NE[5] = gallery_NE[3]  # A tie: the first of equals comes first.
  found_QK, scores_QK = nearest.top_k_of(queries_QE, gallery_NE, 6)
  scores_QN = np.einsum('QE,NE->QN', queries_QE, gallery_NE)
  expected_QK = np.argsort(-scores_QN, axis=1, kind='stable')[:, :6]
  np.testing.assert_array_equal(found_QK, expected_QK)
  np.testing.assert_allclose(
      scores_QK, np.take_along_axis(scores_QN, expected_QK, 1), rtol=1e-5)
  assert nearest.top_k_of(queries_QE, gallery_NE, 99)[0].shape == (7, 20)
  with pytest.raises(ValueError, match='0 candidates'):
    nearest.top_k_of(queries_QE, gallery_NE[:0], 3)


def test_faiss_finds_the_same():
  pytest.importorskip('faiss', reason='optional: requirements-faiss.txt')
  rng = np.random.default_rng(1)
  queries_QE, gallery_NE = rng.normal(size=(5, 8)), rng.normal(size=(50, 8))
  for own, other in zip(
      nearest.top_k_of(queries_QE, gallery_NE, 9, use_faiss=False),
      nearest.top_k_of(queries_QE, gallery_NE, 9, use_faiss=True),
      strict=True):
    np.testing.assert_allclose(own, other, rtol=1e-5)


def test_searching_without_matrices_gives_the_two_stages_order():
  found = nearest.search(make_engine(64), DATA.regions, make_texts(), top_k=3,
                         joint_weight=0.5)
  scorer = make_scorer(languages=('en',))
  dual = scorer.dual()
  match = scorer.match(scorer.wanted(dual, 3))
  final_CI = rerank.reorder(dual['en'], match['en'], top_k=3, joint_weight=0.5)
  np.testing.assert_array_equal(
      found.picture_QK, np.argsort(-final_CI, axis=1)[:, :3])


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished run, to be evaluated as `main.py --mode=evaluate` does."""
  return retrieval_data.make_workdir(tmp_path_factory.mktemp('run'))


@pytest.fixture
def config(workdir):
  return retrieval_data.make_config(workdir.parent / 'data')


def test_writes_results_report_and_table(workdir, config, capsys):
  config.evaluation.max_length = 0
  cell = retrieval.evaluate(config, workdir)
  content = json.loads((workdir / 'retrieval.json').read_text())
  stored = content['settings']['all']
  assert (content['mode'], content['dataset'], content['split']) == (
      'dual', 'pairs', 'test')
  assert stored['step'] == cell['step'] == 7
  assert set(stored['languages']) == {'en', 'de'}
  assert stored['languages']['en']['num_images'] == 9
  assert (workdir / 'report.html').exists()
  out = capsys.readouterr().out
  assert 'mR' in out and '\nde ' in out
  assert 'were cut' not in out and '  cut\n' not in out


def test_what_is_cut_or_left_out_is_told_and_other_modes_land_beside(
    workdir, config, capsys, tmp_path):
  config.setting = 'cut'
  config.evaluation.mode = 'rerank'
  config.evaluation.max_length = 12
  shutil.copytree(workdir.parent / 'data', tmp_path / 'data')
  config.evaluation.data_dir = str(tmp_path / 'data')
  path = tmp_path / 'data' / 'pairs' / 'manifest.json'
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps(manifest | {
      'options': {'limit': 77}, 'skipped': {'empty caption': 3}}))
  entry = retrieval.evaluate(config, workdir)
  out = capsys.readouterr().out
  counts = {name: one['captions_cut']
            for name, one in entry['languages'].items()}
  assert all(counts.values())
  assert f'{sum(counts.values())} captions have more than 12 ids' in out
  assert re.search(rf'^de .* {counts["de"]}$', out, re.MULTILINE)
  assert '\nLeft out: all but 77 items, when it was prepared' in out
  assert 'all splits): empty caption 3\n' in out
  assert len(entry['left_out']) == 2
  content = json.loads((workdir / 'retrieval_rerank.json').read_text())
  stored = content['settings']['cut']
  assert stored['top_k'] == 3 and stored['pairs_scored'] > 0
  assert stored['languages']['de'] == (
      results.rounded(entry['languages']['de']))
  report = (workdir / 'report.html').read_text()
  assert 'captions have more than 12 ids' in report
  assert 'empty caption 3' in report


def test_a_workdir_that_cannot_be_written_is_told_first(
    workdir, config, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setattr(retrieval.weights_lib, 'load', None)
  config.init_from = str(workdir)
  with pytest.raises(errors.UserError, match=(
      r'--workdir=.*file/run: nothing can be written to .*/file \(Not a dir')):
    retrieval.evaluate(config, tmp_path / 'file' / 'run')


def test_init_from_counts_where_it_was_typed(workdir, config):
  retrieval_data.save_checkpoint(workdir.parent / 'other', step=9)
  config.init_from = str(workdir.parent / 'other')
  # From the file, it is what training started from.
  for given, step in ((None, 9), (('init_from',), 9), ((), 7)):
    source = weights_lib.source(config, workdir, given=given)
    assert weights_lib.load(source).step == step
  assert retrieval.evaluate(config, workdir)['step'] == 9


@pytest.mark.parametrize('key, value, message', [
    ('evaluation.protocol', 'coco', "protocol is 'coco'"),
    ('evaluation.mode', 'both', "is 'both'; allowed: dual, joint, rerank"),
    ('evaluation.split', 'tset', "'tset'"),
    ('evaluation.dataset', 'pears', 'pears.*not there'),
    ('evaluation.languages', ('en', 'xx'), "'xx'"),
    ('evaluation.batch_size', 0, 'batch_size is 0'),
    ('init_from', '/nowhere', '/nowhere'),
])
def test_mistakes_in_the_config_are_named(workdir, config, key, value, message):
  before = sorted(path.name for path in workdir.iterdir())
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=message):
    retrieval.evaluate(config, workdir)
  assert sorted(path.name for path in workdir.iterdir()) == before


def test_a_typed_model_key_must_agree(workdir, config):
  config.model.width = 99
  with pytest.raises(errors.UserError, match='width is 99, but 16'):
    retrieval.evaluate(config, workdir, given=('model.width',))


def test_joint_keeps_its_scores_and_the_curve(workdir, config):
  config.evaluation.mode = 'joint'
  cell = retrieval.evaluate(config, workdir)
  content = json.loads((workdir / 'retrieval_joint.json').read_text())
  assert content['protocol'] == 'tux-paint'
  stored = content['settings']['all']
  # 9 pictures; every pair through the joint encoder.
  pairs = sum(9 * one['num_captions'] for one in cell['languages'].values())
  assert stored['pairs_scored'] == pairs
  assert stored['curve'][0]['pairs'] == 0
  last = stored['curve'][-1]
  assert (last['pairs'], last['pairs_share']) == (pairs, 100)
  assert last['agreement'] == {'first': 100, 'first10': 100}
  mean = np.mean([one['mean_recall'] for one in cell['languages'].values()])
  assert last['mean_recall'] == pytest.approx(mean, abs=1e-3)
  for one in stored['languages'].values():
    low, high = one['interval']
    assert low <= one['mean_recall'] <= high
  assert stored['languages']['en']['gap_to_english'] == 0
  assert set(stored['mean_rank_variance']) == {
      'text_to_image', 'image_to_text'}
  folder = workdir / 'scores' / 'pairs_test_tux-paint' / 'all_7'
  piece = np.load(folder / 'de' / 'piece_0000.npy')
  assert piece.shape == (cell['languages']['de']['num_captions'], 9)
  # Nothing is scored twice: the pieces decide.
  np.save(folder / 'de' / 'piece_0000.npy', 0 * piece)
  again = retrieval.evaluate(config, workdir)['languages']
  assert again['de']['text_to_image']['r1'] == 0
  assert again['en'] == cell['languages']['en']


def test_a_picture_without_features_is_named():
  mask_BR = np.array(DATA.regions.mask_BR)
  mask_BR[2] = False
  broken = dataclasses.replace(
      DATA, regions=DATA.regions._replace(mask_BR=mask_BR))
  with pytest.raises(errors.UserError,
                     match=r"'animals/2' has no features \(1 of 7"):
    make_scorer(broken)


def test_an_empty_gallery_is_told():
  empty = dataclasses.replace(
      DATA, image_ids=[], regions=retrieval_data.regions_of(
          DATA, np.arange(0)))
  with pytest.raises(errors.UserError, match='the gallery is empty'):
    make_scorer(empty)


def test_scores_that_are_no_numbers_are_told():
  features_BRF = np.array(DATA.regions.features_BRF)
  features_BRF[4] = np.nan
  broken = dataclasses.replace(
      DATA, regions=DATA.regions._replace(features_BRF=features_BRF))
  scorer = make_scorer(broken)
  with pytest.raises(errors.UserError, match=(
      r"^en: .*caption 0 and picture 'animals/4' is NaN \(11 of 77 are")):
    scorer.dual()
  wanted = {'en': np.zeros((6, 7), bool), 'de': np.zeros((5, 7), bool)}
  wanted['de'][2, 3:5] = True
  with pytest.raises(errors.UserError, match=(
      r"^de: .*caption 2 and picture 'animals/4' is NaN \(1 of 2 are")):
    scorer.match(wanted)


def test_data_of_another_tokenizer_is_refused(workdir, config):
  path = workdir.parent / 'data' / 'pairs' / 'manifest.json'
  before = path.read_text()
  path.write_text(before.replace('"ab"', '"cd"'))
  with pytest.raises(errors.UserError, match='tokenizer'):
    retrieval.evaluate(config, workdir)
  path.write_text(before)


def test_scores_depend_on_weights_geometry_and_all_of_the_regions(
    workdir, config):
  weights = weights_lib.load(workdir)

  def of_scores(weights=weights, data=DATA):
    return provenance.of_scores(config.evaluation, weights, data)

  before = of_scores()
  assert before == of_scores()
  regions, geometry = DATA.regions, weights.config
  for other in (
      of_scores(weights._replace(config=dataclasses.replace(
          geometry, num_heads=4))),
      *(of_scores(data=dataclasses.replace(
          DATA, regions=regions._replace(**{name: changed})))
        for name, changed in (('boxes_BRG', regions.boxes_BRG + 1),
                              ('features_BRF', regions.features_BRF + 1),
                              ('mask_BR', ~regions.mask_BR)))):
    assert other != before
