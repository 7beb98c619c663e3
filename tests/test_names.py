"""How names of pictures meet names in files of features, and files on disk."""

import unicodedata

import hypothesis
from hypothesis import strategies
import pytest

from input_pipeline import file_names
from input_pipeline import regions
from input_pipeline.regions import names

COCO = 'COCO_val2014_{:012}.jpg'
DECOMPOSED = unicodedata.normalize('NFD', 'Übung')


def _index(rows):
  return names.Index(regions.Entry(name, name) for name in rows)


@pytest.mark.parametrize(('images', 'rows', 'found'), [
    # Equal, whatever else is alike.
    (['a', 'a.jpg'], ['a.jpg', 'a'], {'a': 'a', 'a.jpg': 'a.jpg'}),
    # Of another case, without an ending, without a folder on either side.
    (['x/COCO_val2014_000042.JPG'], ['coco_val2014_000042'],
     {'x/COCO_val2014_000042.JPG': 'coco_val2014_000042'}),
    (['A.JPG', 'b.jpg'], ['A', 'b'], {'A.JPG': 'A', 'b.jpg': 'b'}),
    (['a.JPG', 'b.jpg'], ['a.jpg', 'b.jpg'],
     {'a.JPG': 'a.jpg', 'b.jpg': 'b.jpg'}),
    (['1.jpg', '2.jpg'], ['x/1', 'x/2'], {'1.jpg': 'x/1', '2.jpg': 'x/2'}),
    (['y/x/1.jpg'], ['x/1.jpg'], {'y/x/1.jpg': 'x/1.jpg'}),
    # Composed and decomposed, beside names that are equal.
    (['Übung.jpg', 'a.jpg'], [f'{DECOMPOSED}.jpg', 'a.jpg'],
     {'Übung.jpg': f'{DECOMPOSED}.jpg', 'a.jpg': 'a.jpg'}),
    (['x\\1.jpg', './2.jpg', '3.jpg'], ['x/1.jpg', '2.jpg', '3.jpg'],
     {'x\\1.jpg': 'x/1.jpg', './2.jpg': '2.jpg', '3.jpg': '3.jpg'}),
    # COCO's numbers, Flickr's, and both together, as in xFlickr&CO.
    ([COCO.format(42), COCO.format(43)], ['42', '43'],
     {COCO.format(42): '42', COCO.format(43): '43'}),
    ([COCO.format(42), '1000092795.jpg'], ['1000092795', '42'],
     {COCO.format(42): '42', '1000092795.jpg': '1000092795'}),
    (['1000092795.jpg'], ['flickr30k_000001000092795'],
     {'1000092795.jpg': 'flickr30k_000001000092795'}),
    (['000000000042.jpg'], ['42'], {'000000000042.jpg': '42'}),
    # A damaged row has no name.
    (['42.jpg', COCO.format(43)], ['42', '', '43'],
     {'42.jpg': '42', COCO.format(43): '43'}),
    # Rows of a table, which the features' file counts behind a word.
    (['10', '11', '12'], ['train_10', 'train_12'],
     {'10': 'train_10', '12': 'train_12'}),
    # mmf cuts names at their first dot.
    (['a.x.jpg', 'b.x.jpg'], ['a', 'b'], {'a.x.jpg': 'a', 'b.x.jpg': 'b'}),
])
def test_the_same_picture_is_found(images, rows, found):
  assert _index(rows).match(images) == found


@pytest.mark.parametrize(('images', 'rows', 'found'), [
    # One row for two pictures.
    (['a/1.jpg', 'b/1.jpg', 'c/2.jpg'], ['1', '2'], {'c/2.jpg': '2'}),
    (['a.x.jpg', 'a.y.jpg'], ['a'], {}),
    (['p.1.jpg', 'p.2.jpg', 'q.jpg'], ['p', 'q'], {'q.jpg': 'q'}),
    (['A.jpg', 'a.jpg', 'b.jpg'], ['a', 'b'], {'b.jpg': 'b'}),
    (['a.png', 'a.jpg', 'b.jpg'], ['a', 'b'], {'b.jpg': 'b'}),
    (['1.jpg', 'x/1.jpg', '2.jpg'], ['1', '2'], {'2.jpg': '2'}),
    (['p.jpg', 'p.1.jpg', 'q.jpg'], ['p', 'q'], {'q.jpg': 'q'}),
    (['COCO_train2014_42.jpg', 'COCO_val2014_42.jpg', '7.jpg'], ['42', '7'],
     {'7.jpg': '7'}),
    # Two rows for one picture.
    (['1.jpg'], ['x/1', 'y/1'], {}), (['42.jpg'], ['042', '0042'], {}),
    # What is left over on both sides does not belong together.
    (['a/1.jpg', 'b/1.jpg', 'c/2.jpg'], ['a/1.jpg', 'c/2.jpg'],
     {'a/1.jpg': 'a/1.jpg', 'c/2.jpg': 'c/2.jpg'}),
    (['b/1.jpg', 'c/2.jpg'], ['a/1.jpg', 'c/2.jpg'], {'c/2.jpg': 'c/2.jpg'}),
    (['b/1.jpg', '2.jpg'], ['1', '2'], {'2.jpg': '2'}),
    (['b/1.jpg'], ['a/1.jpg'], {}),
    (['7.jpg', 'dog_8.jpg'], ['cat_7', 'dog_8'], {'dog_8.jpg': 'dog_8'}),
    (['cat_7.jpg', '7.jpg', 'dog_8.jpg'], ['cat_7', 'dog_8'],
     {'cat_7.jpg': 'cat_7', 'dog_8.jpg': 'dog_8'}),
    (['7.jpg', '8.jpg'], ['cat_7', 'cat_8'], {}),
    (['7', '8'], ['cat_7', 'dog_8'], {}), (['dog_7.jpg'], ['cat_7'], {}),
    (['cat_8.jpg', '7.jpg'], ['7', '8'], {'7.jpg': '7'}),
    (['p.1.jpg', 'q.jpg'], ['p', 'q'], {'q.jpg': 'q'}),
    (['A.jpg', 'b.jpg'], ['a.jpg', 'b.jpg'], {'b.jpg': 'b.jpg'}),
    (['x.png', 'y.jpg'], ['x.jpg', 'y.jpg'], {'y.jpg': 'y.jpg'}),
    ([COCO.format(42), COCO.format(43)], [COCO.format(42)[:-4]],
     {COCO.format(42): COCO.format(42)[:-4]}),
])
def test_no_picture_gets_the_row_of_another(images, rows, found):
  assert _index(rows).match(images) == found


def test_what_was_matched_is_counted():
  index = _index(['1', '2', '3'])
  index.match(['a/1.jpg', 'b/1.jpg', 'c/2.jpg'])
  assert index.matched == {'name without folder': 1}
  assert index.ambiguous == {'a/1.jpg', 'b/1.jpg'}
  index.match(['1', '2'])
  assert (index.matched, index.ambiguous) == ({'name': 2}, set())


# How extraction programs name a picture; each wrote the whole of its file.
_WRITERS = (
    str, lambda name: unicodedata.normalize('NFD', name), names._stem,
    names._cut, lambda name: name.rpartition('.')[0],
    lambda name: names._stem(name).rpartition('/')[2],
    lambda name: names._cut(name).rpartition('/')[2], names._number)
_PICTURES = strategies.builds(
    '{}{}{}{}'.format, strategies.sampled_from(['', 'A/', 'A/B/', 'C/']),
    strategies.sampled_from(
        ['COCO_val2014_00', 'COCO_train2014_', 'Übung_', 'Übung.', '', '0']),
    strategies.integers(0, 12), strategies.sampled_from(
        ['.jpg', '.JPG', '.png', '.x.jpg']))


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True,
                     database=None)
@hypothesis.given(
    pictures=strategies.lists(_PICTURES, min_size=1, max_size=8, unique=True),
    write=strategies.sampled_from(_WRITERS), data=strategies.data())
def test_whatever_is_missing_nobody_gets_anothers_row(pictures, write, data):
  if write is names._number:  # Who writes numbers has nothing else to write.
    pictures = [name for name in pictures if write(name).isdigit()]
    hypothesis.assume(pictures)
  extracted = data.draw(strategies.lists(
      strategies.sampled_from(pictures), unique=True))
  # Programs that write two pictures under one name keep the last.
  row_of = {write(picture): picture for picture in extracted}
  found = _index(row_of).match(pictures)
  for picture, row in found.items():
    assert row_of[row] == picture
  shuffled = data.draw(strategies.permutations(pictures))
  assert _index(data.draw(strategies.permutations(list(row_of)))).match(
      shuffled) == found
  if write is str:
    assert found == {picture: picture for picture in extracted}


def test_files_are_found_by_the_form_of_their_names(tmp_path):
  (tmp_path / DECOMPOSED).mkdir()
  for name in (f'{DECOMPOSED}/a.png', 'CAT.JPG', 'é.png'):
    (tmp_path / name).touch()
  files = file_names.Folders()
  for name in ('Übung/a.png', 'Übung\\a.png', f'./{DECOMPOSED}//a.png'):
    found = files.find(name, tmp_path / 'images', tmp_path)
    assert found.samefile(tmp_path / DECOMPOSED / 'a.png')
  assert files.find(unicodedata.normalize('NFD', 'é.png'), tmp_path).is_file()
  # Names of another case are other files, and are told.
  for name in ('cat.jpg', 'cat.png', 'a\0.png', 'x' * 300, 'Übung'):
    assert files.find(name, tmp_path) == tmp_path / name
  assert files.near(tmp_path / 'cat.png').endswith("CAT.JPG'")
  assert files.near(tmp_path / 'übung' / 'A.png').endswith("a.png'")
  assert not files.near(tmp_path / 'nowhere' / 'A.png')


def test_two_forms_of_a_name_mean_neither_of_them(tmp_path):
  # A dot below and above: three ways to write it, of which two are there.
  forms = ['ṩ.png', 'ṣ\u0307.png', 's\u0323\u0307.png']
  assert len({unicodedata.normalize('NFC', form) for form in forms}) == 1
  for form in forms[1:]:
    (tmp_path / form).touch()
  files = file_names.Folders()
  assert files.find(forms[0], tmp_path) == tmp_path / forms[0]
  assert not files.find(forms[0], tmp_path).exists()
  for form in forms[1:]:
    assert files.find(form, tmp_path).is_file()


def test_a_folder_is_listed_once_and_only_at_need(tmp_path, monkeypatch):
  listed = []
  listdir = file_names.os.listdir
  monkeypatch.setattr(file_names.os, 'listdir', lambda folder: (
      listed.append(folder), listdir(folder))[1])
  (tmp_path / 'a.png').touch()
  files = file_names.Folders()
  assert files.find('a.png', tmp_path).is_file()
  assert not listed
  for number in range(3):
    assert not files.find(f'{number}.png', tmp_path).is_file()
    files.near(tmp_path / f'{number}.png')
  assert listed == [tmp_path]
