"""report.html holds what it should, is well-formed and needs no network."""

import html.parser
import json
import re

import pytest

from input_pipeline import errors
from m3p_jax.evaluation import charts
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from tests import test_results
from tests import test_statistics

# Elements without an end.
VOID = {'meta', 'img', 'br'}
PIXEL = 'data:image/webp;base64,UklGRg=='


class Checker(html.parser.HTMLParser):
  """Collects text and addresses, and checks that elements nest."""

  def __init__(self):
    super().__init__()
    self.open, self.text, self.addresses, self.directions = [], [], [], []

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.addresses += [attributes[key] for key in ('src', 'href')
                       if key in attributes]
    if 'dir' in attributes:
      self.directions.append((attributes.get('lang'), attributes['dir']))
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def check(content):
  """Returns the parsed page."""
  checker = Checker()
  checker.feed(content)
  checker.close()
  assert not checker.open
  return checker


@pytest.fixture
def workdir(tmp_path):
  for setting, trained, recall in (
      ('no_finetune', ('en',), 20.), ('all', ('en', 'de'), 40.)):
    results.update(
        tmp_path, test_results.HEADER, 'dual', setting, test_results.cell(
            trained=trained, en=recall + 5, de=recall, he=recall - 10))
  return tmp_path


def write_the_rest(workdir):
  results.update(
      workdir, test_results.HEADER, 'rerank', 'all', test_results.cell(
          trained=('en', 'de'), en=47., de=43.21, he=31.))
  for stage in ('pretrain', 'all'):
    (workdir / stage).mkdir()
    lines = [
        {'step': step, 'xmlm/loss': 9. - step / 10,
         'validation/xmlm/loss': 8. - step / 10, 'validation/xmlm/accuracy': .5}
        for step in range(0, 50, 10)]
    (workdir / stage / 'metrics.jsonl').write_text(
        ''.join(json.dumps(line) + '\n' for line in lines))
  results.write(workdir / 'rerank_choice.json', {
      'top_k': 5, 'joint_weight': 0.5,
      'top_k_curve': {'0': 30., '2': 31., '5': 33.25},
      'joint_weight_curve': {'0.25': 32., '0.5': 33.25, '-1.0': 29.}})
  found = [{'image_id': 'a/b', 'english': 'A <b>cat</b>.', 'is_right': True},
           {'image_id': 'a/c', 'english': '', 'is_right': False}]
  results.write(workdir / 'examples.json', {'all': test_results.HEADER | {
      'mode': 'dual', 'pictures': {'a/b': PIXEL}, 'queries': [
          {'language': 'he', 'text': 'חתול <script>', 'english': 'A cat.',
           'rank': 1, 'found': found}]}})
  results.write(workdir / 'timings.json', {'pretrain': {'seconds': 90.}})
  (workdir / 'ablation.md').write_text(
      '# Does it help?\n\nFive seeds.\n\n'
      '| arm | en |\n|---|---:|\n| off | 30.0 |\n')


def test_the_least_report_is_well_formed(workdir):
  page = check(report.write(workdir).read_text())
  text = ' '.join(page.text)
  assert 'held out' in text and 'Hebrew' in text
  assert 'python main.py' in text and 'a computer' in text
  assert page.addresses == []


def test_the_full_report_shows_every_file(workdir):
  write_the_rest(workdir)
  content = report.build(workdir)
  page = check(content)
  text = ' '.join(page.text)
  for expected in (
      'all, re-ranked', '43.2', 'xmlm', 'top 5', '33.2', 'Does it help?',
      'Five seeds',
      'חתול <script>', 'rank 1', 'A <b>cat</b>.', 'a/c', '1.5', '50.0 %'):
    assert expected in text, expected
  assert content.count('<polyline') == 2 * 2 + 3
  # Nothing is fetched: pictures are in the file.
  assert page.addresses == [PIXEL]
  assert not re.search(r'(src|href|url\()\s*=?\s*["\']?https?:', content)


def test_right_to_left_text_is_isolated(workdir):
  write_the_rest(workdir)
  assert check(report.build(workdir)).directions == [('he', 'auto')]


def test_what_was_written_is_shown_with_results_of_retrieval_and_alone(
    workdir, tmp_path_factory):
  # Of other pictures there may be neither a source nor a person's text.
  captions = [{'image': 'a/c', 'language': 'en', 'caption': 'A dog.',
               'score': -1.0},
              {'image': 'a/b', 'language': 'he', 'caption': 'חתול <i>',
               'score': -1.0, 'source': 'A cat.', 'references': ['חתול שחור']}]
  content = {
      'generate': {'num_beams': 4, 'temperature': 0.0, 'source': 'en',
                   'use_picture': False},
      'languages': {'he': {'captions': 1, 'with_references': 1, 'bleu': 12.34,
                           'chrf': 40.0, 'cider_d': 0.5}},
      'run': {'command': 'python main.py'},
      'examples': [{'picture': PIXEL, 'captions': [one]} for one in captions]}
  for folder in (workdir, tmp_path_factory.mktemp('alone')):
    (folder / 'captions').mkdir()
    results.write(folder / 'captions' / 'pets_test.json', content)
    page = check(report.build(folder))
    text = ' '.join(' '.join(page.text).split())
    for expected in ('Written: Pets Test', 'from English without the picture',
                     'beam of 4', '12.3', 'חתול <i>', 'חתול שחור', 'A cat.',
                     'python main.py'):
      assert expected in text, expected
    assert page.addresses == 2 * [PIXEL]
    assert ('Mean recall' in text) == (folder == workdir)


def test_without_results_it_says_what_to_do(tmp_path):
  with pytest.raises(errors.UserError, match='evaluate first'):
    report.write(tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_another_sets_results_stand_apart(workdir):
  other = test_results.HEADER | {'split': 'validation', 'protocol': 'xtd10'}
  results.update(workdir, other, 'dual', 'all', test_results.cell(
      en=77.7) | {'deviations': ['139 pictures instead of 1000']})
  text = ' '.join(check(report.build(workdir)).text)
  own, others = text.split('Retrieval: tux_paint, validation')
  assert '77.7' not in own and 'instead of' not in own
  assert 'xtd10' in others and '77.7' in others
  assert 'published numbers: 139 pictures instead of 1000' in ' '.join(
      others.split())


def test_every_metric_of_every_language_is_there(workdir):
  cell = test_results.cell(trained=('en', 'de'), en=48., de=44.)
  found = {'median_rank': 3., 'mean_rank': 12.25, 'mrr': .4567,
           'ndcg10': .5678, 'num_queries': 1234}
  one = cell['languages']['de']
  cell['languages']['de'] = one | {
      'interval': [40.5, 47.25], 'gap_to_english': 4.,
      'text_to_image': one['text_to_image'] | found}
  results.update(workdir, test_results.HEADER, 'dual', 'all', cell)
  tables = dict(re.findall(
      r'<details[^>]*><summary>(\w+)</summary>(.*?)</details>',
      report.build(workdir), re.S))
  rows = [row for row in re.findall(r'<tr>.*?</tr>', tables['all'])
          if 'German' in row]
  assert [re.findall(r'<td>(.*?)</td>', row)[1:] for row in rows] == [
      ['44.0', '40.5–47.2', '4.0', '+4.0'],
      ['1,234', '44.0', '44.0', '44.0', '3.0', '12.2', '0.457', '0.568'],
      ['–', '44.0', '44.0', '44.0', '–', '–', '–', '–']]


@pytest.mark.parametrize('low, high', [
    (0., 1.), (3., 3.), (-2.5, 17.), (0., 123_456.), (1e-5, 3e-5)])
def test_ticks_cover_the_range_with_round_numbers(low, high):
  found = charts.ticks(low, high)
  assert found[0] <= low and found[-1] >= high
  assert 2 <= len(found) <= 7


def test_thinning_keeps_ends_and_mean():
  points = [(float(i), float(i % 2)) for i in range(1000)]
  thin = charts.thin(points)
  assert len(thin) <= charts.MAX_POINTS
  assert sum(y for _, y in thin) / len(thin) == pytest.approx(0.5, abs=0.05)
  assert charts.thin(points[:5]) == points[:5]


def test_report_says_when_re_ranking_changes_nothing(workdir):
  choice = {'top_k': 1, 'joint_weight': 0.25,
            'top_k_curve': {'0': 40., '1': 40., '8': 39.},
            'joint_weight_curve': {'0.25': 39., '-1.0': 30.}}
  for top_k in (1, 8):
    results.write(workdir / 'rerank_choice.json', choice | {'top_k': top_k})
    page = report.build(workdir)
    assert ('changes nothing' in page) == (top_k == 1)
    assert 'gives 30.0 at top 8' in page


def test_curves_mistakes_and_attention_are_shown(workdir):
  write_the_rest(workdir)
  results.update_ranks(workdir / 'retrieval.json', 'all', {
      'en': test_statistics.language([1, 4, 40, 40]),
      'de': test_statistics.language([1, 1, 40, 40])})
  curve = [
      {'top_k': k, 'pairs': 10 * k, 'pairs_share': 12.34 * k,
       'mean_recall': 40. + k, 'agreement': {'first': 77.7, 'first10': 66.6}}
      for k in (0, 1, 8)]
  exact = test_results.cell(trained=('en', 'de'), en=48., de=44., he=30.)
  exact['languages']['de']['gap_to_english'] = 4.0
  results.update(workdir, test_results.HEADER, 'joint', 'all', exact | {
      'curve': curve, 'mean_rank_variance': {
          'text_to_image': 123.4, 'image_to_text': 56.7}})
  examples = results.read(workdir / 'examples.json')
  query = examples['all']['queries'][0]
  examples['all']['mistakes'] = [query | {
      'rank': 99, 'text': 'schlimm', 'wanted': query['found'][0]}]
  results.write(workdir / 'examples.json', examples)
  results.write(workdir / 'attention.json', {'pairs': [{
      'language': 'ar', 'text': 'قط أحمر', 'image_id': 'a/b',
      'picture': PIXEL, 'boxes': [[0., 0., .5, 1.], [.5, 0., 1., 1.]],
      'words': [{'word': 'قط', 'weights': [.1, .4]},
                {'word': 'أحمر', 'weights': [0., 0.]}]}]})
  content = report.build(workdir)
  page = check(content)
  text = ' '.join(page.text)
  for expected in (
      'Recall at k', 'Two stages', '98.7', '77.7 %', 'Worst mistakes',
      'schlimm', 'rank 99', 'Where words look', 'أحمر', 'Across languages',
      '123', '+4.0'):
    assert expected in text, expected
  # The strongest region of a word is dark, the weakest clear; equal ones too.
  assert content.count('opacity="0.70"') == 1
  assert content.count('opacity="0.00"') == 3
  assert set(page.addresses) == {PIXEL}
