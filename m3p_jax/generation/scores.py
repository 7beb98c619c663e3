"""Scores of what was written against people's texts: BLEU, chrF, CIDEr-D."""

from collections import Counter
from collections.abc import Sequence
import importlib.util
import math
import re

from input_pipeline import tokenizer as tokenizer_lib

Grams = Counter[tuple[str, ...]]
_LONGEST = 4
_SIGMA = 6.0
# Of Chinese and Japanese, whose words no space divides, the characters.
_PIECE = re.compile(r'[぀-ヿ㐀-鿿]|[^぀-ヿ㐀-鿿]+')


def words(text: str) -> list[str]:
  """Returns what CIDEr compares: words in lower case, without punctuation.

  Nothing is stemmed, as in the measure's usual implementation.

  >>> words('Zwei Männer, lachend.'), words('赤いりんご。')
  (['zwei', 'männer', 'lachend'], ['赤', 'い', 'り', 'ん', 'ご'])
  >>> words('हिन्दी में।')
  ['हिन्दी', 'में']
  """
  pieces = (piece for word in tokenizer_lib.split_words(text.lower())
            for piece in _PIECE.findall(word))
  cores = (tokenizer_lib.split_word(piece).core for piece in pieces)
  return [core for core in cores if core]


def cider(texts: Sequence[str],
          references: Sequence[Sequence[str]]) -> list[float]:
  """Returns CIDEr-D of each text, from 0 to 10; the set's is their mean.

  N-grams of up to four words weigh by how few of the pictures have them in a
  reference, count no more often than a reference has them, and a text of
  another length than the reference's loses.
  Source: Vedantam et al. 2015, equations 1 to 3 and section 6.

  Args:
    texts: one a picture.
    references: each picture's captions by people, one or more.
  """
  counted = [[_grams(text) for text in one] for one in references]
  seen: Grams = Counter()
  for one in counted:
    seen.update(set().union(*one))

  def weigh(grams: Grams) -> dict[tuple[str, ...], float]:
    return {gram: count * math.log(len(texts) / max(seen[gram], 1))
            for gram, count in grams.items()}

  def compare(ours: Grams, theirs: Grams) -> float:
    gap = sum(count * (len(gram) == 1) for gram, count in ours.items()) - sum(
        count * (len(gram) == 1) for gram, count in theirs.items())
    return 10 * math.exp(-gap ** 2 / (2 * _SIGMA ** 2)) * _clipped_cosine(
        weigh(ours), weigh(theirs))

  return [sum(compare(_grams(text), grams) for grams in one) / len(one)
          for text, one in zip(texts, counted, strict=True)]


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]],
         ) -> tuple[float, str] | None:
  """Returns (BLEU-4 of the set in per cent, case ignored; its signature).

  None without sacrebleu (requirements-metrics.txt).
  """
  if not importlib.util.find_spec('sacrebleu'):
    return None
  import sacrebleu
  return _score(sacrebleu.BLEU(lowercase=True), texts, references)


def chrf(texts: Sequence[str],
         references: Sequence[Sequence[str]]) -> tuple[float, str]:
  """Returns (chrF of the set, case counted; its signature), by sacrebleu."""
  import sacrebleu
  return _score(sacrebleu.CHRF(), texts, references)


def _score(metric, texts, references) -> tuple[float, str]:
  # A picture may have fewer references than another.
  score = metric.corpus_score(list(texts), [
      [one[i] if i < len(one) else None for one in references]
      for i in range(max(map(len, references)))])
  return score.score, str(metric.get_signature())


def _grams(text: str) -> Grams:
  found = words(text)
  return Counter(tuple(found[i:i + n]) for n in range(1, _LONGEST + 1)
                 for i in range(len(found) - n + 1))


def _clipped_cosine(ours, theirs) -> float:
  """Returns the mean over n of n-grams' cosine, no weight beyond theirs."""
  total = 0.0
  for n in range(1, _LONGEST + 1):
    a, b = ({gram: weight for gram, weight in grams.items()
             if len(gram) == n} for grams in (ours, theirs))
    norm = math.hypot(*a.values()) * math.hypot(*b.values())
    if norm:
      total += sum(min(weight, b.get(gram, 0)) * b.get(gram, 0)
                   for gram, weight in a.items()) / norm
  return total / _LONGEST
