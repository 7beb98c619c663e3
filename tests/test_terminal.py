"""What a user reads: bars, the header, the summary, help, quiet pipes."""

import io
import os
import pathlib
import pty
import re
import subprocess
import sys

import jax
import pytest

from configs import captioning
from configs import classification
from configs import smoke
from input_pipeline import console
from m3p_jax import metrics
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import summary
from m3p_jax import train_step

ROOT = pathlib.Path(__file__).parent.parent
_CONTROL = re.compile(r'[\x00-\x09\x0b-\x1f\x7f]')
_BAR = ('from input_pipeline import console\n'
        'console.SECONDS_PER_LINE = 0\n'
        'with console.bar("reading", 3, unit="pictures") as bar:\n'
        '  for _ in range(3): bar.update()\n'
        'print("result")')


def test_a_piped_bar_is_whole_lines():
  result = subprocess.run([sys.executable, '-c', _BAR], cwd=ROOT, text=True,
                          capture_output=True, check=True)
  assert result.stdout == 'result\n'
  assert not _CONTROL.search(result.stderr)
  lines = result.stderr.splitlines()
  assert lines[-1].startswith('reading: 3 of 3 pictures, ')
  assert all('left' in line and 'pictures/s' in line for line in lines)


def test_a_bar_in_a_terminal_is_drawn():
  ours, theirs = pty.openpty()
  subprocess.run([sys.executable, '-c', _BAR], cwd=ROOT, stderr=theirs,
                 stdout=subprocess.DEVNULL, check=True)
  os.close(theirs)
  drawn = os.read(ours, 10_000).decode()
  os.close(ours)
  assert '\r' in drawn and '3 of 3 pictures' in drawn and 'reading' in drawn


def test_short_work_says_nothing_in_a_pipe(monkeypatch):
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stderr', stream)
  with console.bar('short', unit='items') as bar:
    bar.reset(total=2)
    bar.update()
    bar.set_postfix_str('loss 1')
    bar.update()
  assert not stream.getvalue()


def test_stderr_is_held_back_and_shown_after_an_error(capfd):
  with console.hold_stderr():
    os.write(2, b'noise\n')
  assert not capfd.readouterr().err
  with pytest.raises(ImportError), console.hold_stderr():
    os.write(2, b'cause\n')
    raise ImportError
  assert capfd.readouterr().err == 'cause\n'


def test_importing_tensorflow_is_silent():
  code = ('import importlib.util\nimport input_pipeline\n'
          # Others ask for it before they import it.
          'importlib.util.find_spec("tensorflow")\n'
          'import tensorflow as tf\nprint(int(tf.constant(1) + 1))')
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True,
                          capture_output=True, check=True)
  assert result.stdout == '2\n'
  assert not result.stderr


def test_a_terminal_of_another_encoding_gets_every_line(monkeypatch):
  file = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(file, 'ascii'))
  console.one_line(lambda: print('é …', flush=True))()
  assert file.getvalue() == b'\\xe9 \\u2026\n'


def test_a_wrong_flag_of_another_program_names_the_right_one():
  result = subprocess.run(
      [sys.executable, '-m', 'input_pipeline.sources', '--lst'], cwd=ROOT,
      text=True, capture_output=True, check=False)
  assert result.returncode == 2
  assert result.stderr == ('error: there is no flag --lst; did you mean '
                           '--list? --help lists all\n')


def test_wrong_choices_name_the_nearest():
  message = 'flag --mode=Serch: value should be one of <train|search>'
  assert console._wrong_value(message).endswith('did you mean --mode=search?')
  assert console._wrong_value('flag --k=0: 0 is not positive') == (
      'flag --k=0: 0 is not positive')


def test_summary_shows_first_and_last_and_what_is_next(tmp_path):
  config = smoke.get_config()
  config.data.data_dir = str(tmp_path / 'data')
  writer = metrics.Writer(tmp_path, start_step=0)
  writer.write(0, {'validation/xmlm/loss': 9.5})
  writer.write(8, {'train/loss': 1, 'examples_per_second': 1234.5})
  writer.write(8, {'validation/xmlm/loss': 8.25, 'validation/mlm/new': 1})
  writer.close()
  (tmp_path / 'checkpoints' / '8').mkdir(parents=True)
  text = summary.after_training(tmp_path, config)
  assert 'step 8 of 8 at 1,23' in text
  assert re.search(r'xmlm/loss +9\.500 +8\.250\n', text)
  assert re.search(r'mlm/new +– +1\.000\n', text)
  # The set to search in is not prepared: that comes first.
  assert 'input_pipeline.prepare --dataset=tux_paint' in text
  assert f'--workdir={tmp_path} --mode=evaluate' in text
  assert f'--workdir={tmp_path} --mode=search --query=' in text


def test_what_is_next_fits_what_was_learned(tmp_path):
  config = captioning.get_config()
  (line,) = summary.next_commands('train', tmp_path, config)
  assert line.endswith(f'--workdir={tmp_path} --mode=generate')
  config = classification.get_config('marvl')
  lines = summary.next_commands('train', tmp_path, config)
  assert 'input_pipeline.prepare --dataset=marvl' in lines[0]
  assert lines[1].endswith('--mode=evaluate')
  assert len(lines) == 2  # No search: nothing ranks pictures.
  rows = summary.evaluation_rows(config, tmp_path, 'runs/x')
  assert rows['protocol'] == 'marvl'
  assert 'files' not in rows


@pytest.mark.parametrize(('values', 'told'), [
    ({'rate': 0.5}, '50% of the words of every caption'),
    ({'rate': 0.5, 'sentence_rate': 0.25},
     '50% of the words of 25% of captions'),
    ({'mode': 'one', 'rate': 0.0}, 'one word of every caption'),
    ({'rate': 0.0}, ''), ({'rate': 0.5, 'sentence_rate': 0.0}, '')])
def test_header_says_what_is_switched(values, told, tmp_path):
  config = smoke.get_config()
  config.data.image_text.code_switch.update(
      {'languages': ('de', 'fr')} | values)
  mesh = sharding.make_mesh()
  start = startup.Start(startup.model_config(config), ('en',), {}, 'fresh')
  state = train_step.TrainState(0, {}, {}, {})
  lines = summary.training_rows(config, start, state, mesh, tmp_path)['data']
  found = [line for line in lines if 'switched' in line]
  assert found == [f'image_text: {told} switched into de, fr'] * bool(told)


def test_header_says_what_data_and_where(tmp_path, capsys):
  config = smoke.get_config()
  summary.show({'one': 'text', 'more': ['first', 'second']}
               | summary.evaluation_rows(config, tmp_path, 'runs/x'))
  captured = capsys.readouterr()
  assert not captured.out
  lines = captured.err.splitlines()
  assert lines[:3] == ['one        text', 'more       first',
                       '           second']
  assert jax.devices()[0].device_kind in captured.err
  assert 'tux_paint (test) in data, en, de' in captured.err
  assert 'rerank, top 3' in captured.err
  assert f'{tmp_path}/: retrieval.json' in captured.err
  assert 'weights    runs/x\n' in captured.err
