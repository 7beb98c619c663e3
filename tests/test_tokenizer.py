"""The rebuilt tokenizer gives XLM-R's published ids."""

import multiprocessing
import pickle

import pytest

from input_pipeline import errors
from input_pipeline import tokenizer as tokenizer_lib

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
    ('line\nbreak', 'line break'), ('അവന്\u200dറെ', 'അവന് റെ')])
def test_text_is_normalised_as_xlmr_does(tokenizer, text, same):
  assert tokenizer.encode(text) == tokenizer.encode(same)


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
