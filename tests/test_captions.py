"""Captions as words (`tokenizer.py`): their parts, keys and ids."""

import itertools

import pytest

from input_pipeline import tokenizer as tokenizer_lib

SENTENCES = [
    ('en', 'A red apple, please.'), ('en', '"Hello World!" (he said) …'),
    ('de', 'Ein Löwe – der König der Tiere.'), ('fr', 'L’été, c\'est l’été !'),
    ('ar', 'تفاحة حمراء.'), ('hi', 'एक लाल सेब।'), ('ja', '赤いりんご。'),
    ('zh_CN', '一只红苹果。'), ('th', 'แอปเปิลแดง'), ('am', 'ቀይ ፖም፡፡'),
    ('es', '¿Qué es? ¡Un perro!'), ('en', 'ﬁre ½ ＡＢＣ 50% C++ #1 🍎'),
    ('ml', 'ചുവന്ന ആപ്പിള്\u200d')]


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
  encoded = tokenizer_lib.CaptionEncoder(tokenizer).encode(SENTENCES)
  for (language, text), caption in zip(SENTENCES, encoded, strict=True):
    assert caption['language'] == language
    assert caption['text'] == text
    assert caption['word_ids'] == tokenizer.encode(text), text
    words = text.split()
    assert len(caption['keys']) == len(words)
    for name in tokenizer_lib.PARTS:
      assert len(caption[f'{name}_lengths']) == len(words)
      assert sum(caption[f'{name}_lengths']) == len(caption[f'{name}_ids'])


def test_parts_spell_the_word(tokenizer):
  for caption in tokenizer_lib.CaptionEncoder(tokenizer).encode(SENTENCES):
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
