"""Draws the pictures of docs/concepts.md from prepared data.

python -m docs.draw --data_dir=data

Needs what `make quickstart` prepares (emoji, udhr, dictionaries). The picture
shown is of Fluent Emoji (MIT), the words are what the library makes of them.
"""

import pathlib

from absl import flags
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from input_pipeline import code_switch
from input_pipeline import console
from input_pipeline import copies
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib

FOLDER = pathlib.Path(__file__).parent / 'images'
_EMOJI = '1f415-200d-1f9ba'  # A service dog.
_LANGUAGES = ('de', 'fr', 'cs', 'el', 'tr', 'sv')
_INK, _BLUE, _ORANGE, _GREY = '#222222', '#3366aa', '#d9772b', '#bbbbbb'
_RATE = 0.5


def read(data_dir: pathlib.Path):
  """Returns (picture, its caption, the caption switched into each language)."""
  for split in ('train', 'validation', 'test'):
    pictures, captions = store.read_image_text(data_dir, 'emoji', split)
    if _EMOJI in pictures.image_ids:
      break
  else:
    raise errors.UserError(f'{data_dir}: no emoji {_EMOJI} in it')
  number = pictures.image_ids.index(_EMOJI)
  row = next(i for i, picture in enumerate(captions.picture_C)
             if picture == number and captions.languages[i] == 'en'
             and len(captions.texts[i].split()) > 1)
  tokenizer = tokenizer_lib.load()
  words = store.gather_words(captions, np.array([row]), max_words=64)
  switched = {}
  for language in _LANGUAGES:
    ids = code_switch.switch(
        words, dictionaries.load(data_dir / dictionaries.FOLDER, (language,)),
        seed=(0, 1), settings=code_switch.Settings(rate=1.0),
        is_source_B=[True])
    switched[language] = tokenizer.decode(ids.to_list()[0])
  image = Image.open(copies.small(data_dir / 'emoji', _EMOJI))
  return image.convert('RGB').resize((224, 224)), captions.texts[row], switched


def _text(axis, x, y, text, **options):
  axis.text(x, y, text, **{'color': _INK, 'fontsize': 10, 'va': 'center'}
            | options)


def _axis(width, height, **limits):
  figure, axis = plt.subplots(figsize=(width, height))
  axis.set(xlim=(0, 100), ylim=(0, 100), **limits)
  axis.axis('off')
  return figure, axis


def _show(axis, image, extent):
  axis.imshow(image, extent=extent, aspect='auto', zorder=1)


def streams(image, caption, switched, sentences):
  """Returns the figure of the three streams."""
  figure, axis = _axis(9, 4)
  rows = (('multilingual text', 'xMLM', 80), ('picture + English caption',
                                              'MC-MRM\nMC-VLM', 48),
          ('picture + switched caption', 'MC-MLM\nMC-VLM', 16))
  for title, objectives, y in rows:
    axis.add_patch(plt.Rectangle((1, y - 14), 70, 28, fill=False,
                                 edgecolor=_GREY))
    _text(axis, 3, y + 10, title, weight='bold', color=_BLUE)
    axis.annotate('', (80, 48), (71, y), arrowprops=dict(
        arrowstyle='->', color=_GREY))
    _text(axis, 72.5, y + 2 if y != 48 else 57, objectives, fontsize=8,
          color=_ORANGE)
  for place, (language, sentence) in enumerate(sentences.items()):
    _text(axis, 4, 83 - 6 * place, f'{language}:  {sentence}', fontsize=9)
  for y, text in ((48, f'en:  {caption}'),
                  (16, f'fr, de:  {switched["fr"]} · {switched["de"]}')):
    _show(axis, image, (4, 15, y - 12, y + 7))
    _text(axis, 19, y - 2, text)
  axis.add_patch(plt.Rectangle((81, 30), 18, 36, facecolor='#eef3fa',
                               edgecolor=_BLUE))
  _text(axis, 90, 48, 'one\nTransformer', ha='center', weight='bold')
  return figure


def objectives(image, caption):
  """Returns the figure of the four objectives on one picture."""
  figure, axis = _axis(9, 3.6)
  _show(axis, image, (2, 26, 20, 92))
  for k in (1, 2):
    axis.plot([2 + 8 * k] * 2, [20, 92], color=_BLUE, lw=1, zorder=2)
    axis.plot([2, 26], [20 + 24 * k] * 2, color=_BLUE, lw=1, zorder=2)
  axis.add_patch(plt.Rectangle((18, 44), 8, 24, color=_GREY, zorder=3))
  words = caption.split()
  masked = ['<mask>', *words[1:]]
  _text(axis, 14, 10, '3 × 3 regions and the whole, some zeroed', fontsize=8,
        ha='center')
  _text(axis, 44, 56, '  '.join(masked), fontsize=11, ha='center')
  _text(axis, 44, 44, 'words, some masked', fontsize=8, ha='center')
  for y, name, told in (
      (88, 'xMLM', 'which word is masked? (text alone)'),
      (66, 'MC-MLM', f'with the regions: which word?  → {words[0]}'),
      (44, 'MC-MRM', 'which class and feature has the zeroed region?'),
      (22, 'MC-VLM', 'do picture and caption belong together?')):
    axis.add_patch(plt.Rectangle((60, y - 8), 39, 16, facecolor='#fdf3ea',
                                 edgecolor=_ORANGE))
    _text(axis, 61, y + 3, name, weight='bold', color=_ORANGE)
    _text(axis, 61, y - 4, told, fontsize=7.5)
  return figure


def switching(caption, switched):
  """Returns the figure of code-switching: a caption and its languages."""
  figure, axis = _axis(9, 2.8)
  _text(axis, 2, 85, caption, fontsize=13, weight='bold')
  _text(axis, 2, 68, f'each word: replaced with probability β = {_RATE:g}, if '
        'the dictionary has it (here every one is)', fontsize=8)
  for place, (language, text) in enumerate(switched.items()):
    x, y = 4 + 48 * (place % 2), 48 - 18 * (place // 2)
    _text(axis, x, y, language, color=_ORANGE, weight='bold')
    _text(axis, x + 5, y, text, fontsize=11)
  return figure


def main(argv) -> None:
  """Draws all pictures."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}')
  data_dir = pathlib.Path(flags.FLAGS.data_dir)
  image, caption, switched = read(data_dir)
  tokenizer, sentences = tokenizer_lib.load(), {}
  for record in store.open_builder(data_dir, 'udhr').as_dataset(
      split='train', shuffle_files=False).as_numpy_iterator():
    language, (ends,) = record['language'].decode(), np.nonzero(
        record['ids'] == tokenizer_lib.EOS)
    for ids in np.split(record['ids'], ends):
      if language in ('en', 'de', 'el') and 9 < len(ids) < 13:
        sentences.setdefault(language, tokenizer.decode(ids))
  for name, figure in (
      ('streams', streams(image, caption, switched, sentences)),
      ('objectives', objectives(image, caption)),
      ('code_switching', switching(caption, switched))):
    figure.savefig(FOLDER / f'{name}.png', dpi=120, bbox_inches='tight',
                   metadata={'Software': None})
    print(FOLDER / f'{name}.png')


if __name__ == '__main__':
  flags.DEFINE_string('data_dir', 'data', 'Folder of prepared data.')
  console.run_main(main)
