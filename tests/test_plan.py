"""`--mode=plan`: what its file says, and what it does where a step is too big.

Compiled for this machine, whose device gets the constants of a chip.
"""

import dataclasses
import importlib.util
import json
import math

import jax
import pytest

from configs import base
from input_pipeline import errors
from input_pipeline import store
from m3p_jax.planning import chips
from m3p_jax.planning import feed
from m3p_jax.planning import jobs
from m3p_jax.planning import plan
from tests import models
from tests import toy

SIZE = dataclasses.replace(models.SHORT, num_layers=2)
MB = 2 ** 20


@pytest.fixture
def chip(monkeypatch):
  """Returns a function that gives this machine's device so much memory."""
  def give(memory_bytes):
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(chips.CHIPS, 'v0', chips.Chip(
        kind, 1e12, 1e10, memory_bytes))
  return give


def make_config(**changes):
  config = base.get_config()
  config.model.update(
      dataclasses.asdict(SIZE), dropout=0.0, attention_dropout=0.0)
  config.tasks = dict(
      xmlm=base.task_config('masked_lm', 'text', 4),
      mc_vlm=base.task_config('matching', 'image_text', 3))
  # Named and never read: what is planned needs no data.
  config.data.text.datasets = ('udhr',)
  config.data.image_text.datasets = ('emoji',)
  config.data.text.max_length = config.data.image_text.max_length = 8
  config.mesh.data = config.mesh.model = 1
  config.plan.num_regions = 5
  config.plan.update(changes)
  return config


def test_reads_are_counted_by_the_records_that_are_there():
  config = make_config()
  config.tasks.mc_mlm = base.task_config(
      'masked_lm', 'image_text', 8, rows='shared')
  config.tasks.mc_vlm.rows = 'shared'
  config.data.data_dir = str(toy.data_dir())
  by_shape = feed.record_bytes(
      config, config.tasks.mc_mlm)  # No emoji there.
  config.data.image_text.datasets = ('pairs', 'english')
  infos = [store.open_builder(toy.data_dir(), name).info
           for name in ('pairs', 'english')]
  size = (sum(info.dataset_size for info in infos) / sum(
      split.num_examples for info in infos for split in info.splits.values()))
  assert feed.record_bytes(
      config, config.tasks.mc_mlm) == size != by_shape
  found = feed.needed(config, step_seconds=.5, hosts=2)
  # Shared rows are read once: eight of the larger batch.
  assert found['image_text']['rows_per_second'] == 8
  assert found['image_text']['bytes_per_second'] == 8 * size
  assert found['text']['rows_per_second'] == 4


def test_the_file_has_what_the_table_says(chip, tmp_path, capsys):
  chip(64 * MB)
  config = make_config()
  found = plan.plan(config, tmp_path)
  assert json.loads((tmp_path / 'plan.json').read_text()) == found
  assert found['chips'] == 1
  assert found['mesh'] == {'data': 1, 'fsdp': 1, 'model': 1}
  # A matching task scores its right and its wrong pairs.
  assert found['rows_per_step'] == 4 + 2 * 3
  memory = found['bytes_per_chip']
  assert memory['total'] == sum(
      memory[name] for name in ('arguments', 'temporaries', 'output'))
  assert memory['arguments'] > memory['parameters'] + memory['optimizer']
  # Parameters are float32, and Adam has two moments of each.
  assert memory['parameters'] == 4 * found['parameters']
  assert memory['optimizer'] >= 2 * memory['parameters']
  seconds = max(found['flops_per_chip'] / 1e12,
                found['bytes_accessed_per_chip'] / 1e10)
  assert math.isclose(found['roofline_step_seconds'], seconds)
  assert math.isclose(found['rows_per_second'], 10 / seconds)
  assert math.isclose(found['utilisation_bound'],
                      found['model_flops_per_chip'] / 1e12 / seconds)
  # The compiled program has the products of both passes and little more.
  assert 0.9 < found['traced_flops_per_chip'] / found['flops_per_chip'] < 1.1
  assert found['fits']
  assert capsys.readouterr().out.strip().endswith('fits')


def test_too_big_a_step_says_by_how_much_and_what_to_change(
    chip, tmp_path, capsys):
  chip(MB // 4)
  found = plan.plan(make_config(), tmp_path)
  assert not found['fits']
  told = capsys.readouterr().out
  assert 'does not fit' in told
  assert 'more than there are' in told
  assert 'tasks.*.batch_size' in told


@pytest.fixture
def bytes_of(chip, monkeypatch):
  """Returns a function that sets the bytes which a plan finds, by its rows."""
  chip(MB)

  def count_rows(config):  # As it is counted above, without tracing losses.
    return config.tasks.xmlm.batch_size + 2 * config.tasks.mc_vlm.batch_size

  def of(rule, rate=lambda rows: 1):
    def planned(config):
      rows = count_rows(config)
      used = rule(rows)
      return plan.Plan('x', 1, {}, rows, 0, {
          'parameters': 0, 'optimizer': 0, 'total': used, 'limit': MB},
                       rows_per_second=rate(rows), fits=used <= MB)
    monkeypatch.setattr(jobs, 'count_rows', count_rows)
    monkeypatch.setattr(plan, '_plan', planned)

  return of


@pytest.mark.parametrize('rule', [
    lambda rows: 1e5 + 700 * rows,
    lambda rows: 1e5 + 9 * rows ** 2,
    # The compiler chooses another algorithm.
    lambda rows: 3e5 + 100 * rows + (rows > 400) * 9e5])
def test_search_finds_a_batch_that_fits_and_hardly_more_does(
    bytes_of, rule, tmp_path):
  bytes_of(rule)
  found = plan.plan(make_config(search=True), tmp_path)
  assert found['fits']
  # Batches of the tasks are whole numbers, 10 rows together.
  assert rule(found['rows_per_step'] * 1.06 + 10) > MB


def test_search_takes_the_fastest_and_says_what_it_tried(
    bytes_of, tmp_path, capsys):
  bytes_of(lambda rows: 1e5 + 700 * rows, lambda rows: -abs(rows - 100))
  plan.plan(make_config(search=True), tmp_path)
  found = json.loads((tmp_path / 'plan.json').read_text())
  rows = [one[0] for one in found['tried']]
  assert found['rows_per_step'] == min(rows, key=lambda one: abs(one - 100))
  assert found['rows_per_step'] < max(rows)
  assert capsys.readouterr().out.count('tried ') == len(rows)


def test_search_where_nothing_fits(bytes_of, tmp_path):
  bytes_of(lambda rows: 2 * MB)
  with pytest.raises(errors.UserError, match='not even .* rows a step fit'):
    plan.plan(make_config(search=True), tmp_path)
  assert not (tmp_path / 'plan.json').exists()


def test_an_unknown_device_has_no_limit(tmp_path):
  found = plan.plan(make_config(), tmp_path)
  text = (tmp_path / 'plan.json').read_text()
  assert json.loads(text, parse_constant=pytest.fail) == found
  assert found['bytes_per_chip']['limit'] is None
  assert found['utilisation_bound'] is None


def test_topologies_that_cannot_be_meant(tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match="'v9x'.*v5e"):
    plan.plan(make_config(topology='v9x:2x4'), tmp_path)
  find = importlib.util.find_spec
  monkeypatch.setattr(
      importlib.util, 'find_spec',
      lambda name, *rest: None if name == 'libtpu' else find(name, *rest))
  with pytest.raises(errors.UserError, match='requirements-plan.txt'):
    plan.plan(make_config(topology='v5e:2x4'), tmp_path)
