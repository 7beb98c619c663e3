"""Tux Paint's stamps: pictures with human captions in many languages.

Split by English caption: 20 % test, the next 10 % validation, the rest train;
no caption is in two splits. Where a translation is the same for captions of
two splits ("Ein Rentier." for a reindeer and a caribou), it stays in `test`
first, then in `validation`, and is left out of the others.
"""

from collections.abc import Callable
import pathlib
import random

from input_pipeline import builder
from input_pipeline import languages
from input_pipeline import sources


def group_name(caption: str) -> str:
  """Returns what pictures with the same English caption share."""
  return caption.casefold().strip().rstrip('.!?').strip()


def read_captions(path: pathlib.Path) -> dict[str, str]:
  """Returns {Tux Paint's language code: caption} of a stamp's text file."""
  lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
  found = {'en': lines[0].strip()} if lines[0].strip() else {}
  for line in lines[1:]:
    code, _, text = line.partition('=')
    if code.endswith('.utf8') and text.strip():
      found[code.removesuffix('.utf8')] = text.strip()
  return found


def assign_splits(captions: list[str]) -> dict[str, str]:
  """Returns the split of each distinct English caption."""
  distinct = sorted(set(captions))
  random.Random(0).shuffle(distinct)
  num_test = round(0.2 * len(distinct))
  num_validation = round(0.1 * len(distinct))
  return {caption: 'test' if i < num_test else
          'validation' if i < num_test + num_validation else 'train'
          for i, caption in enumerate(distinct)}


def drop_shared(items: list[builder.ImageItem],
                form: Callable[[str], str]) -> list[builder.ImageItem]:
  """Returns the items without captions that another split has.

  Args:
    form: what captions are compared by.
  """
  owner: dict[tuple[str, str], str] = {}
  for split in ('train', 'validation', 'test'):
    owner |= {(code, form(text)): split for item in items
              if item.split == split for code, text in item.captions}
  return [item._replace(captions=[
      (code, text) for code, text in item.captions
      if owner[code, form(text)] == item.split]) for item in items]


class Builder(builder.ImageTextBuilder):
  """Tux Paint stamps outside `symbols/`, photographs and drawings."""

  def items(self) -> list[builder.ImageItem]:
    folder = next(iter(sorted(
        sources.fetch('tuxpaint-stamps-default').rglob('stamps'))))
    codes = languages.source_codes('tux_paint', self.options.languages)
    stamps = []
    for path in sorted(folder.rglob('*.txt')):
      name = path.relative_to(folder).with_suffix('').as_posix()
      pictures = [path.with_suffix(end) for end in ('.png', '.svg')]
      existing = [picture for picture in pictures if picture.exists()]
      captions = read_captions(path)
      if name.startswith('symbols/') or not existing or not captions.get('en'):
        continue
      stamps.append((name, existing[0], captions))
    form = self.tokenizer.normalise
    splits = assign_splits([form(captions['en']) for *_, captions in stamps])
    items = [
        builder.ImageItem(
            image_id=name, path=path,
            split=splits[form(captions['en'])],
            group=group_name(form(captions['en'])),
            captions=[(code, captions[theirs])
                      for theirs, code in codes.items() if theirs in captions])
        for name, path, captions in stamps]
    return drop_shared(items, form)
