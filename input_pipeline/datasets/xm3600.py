"""XM3600 (Crossmodal-3600): 3,600 test images in 36 languages.

`--raw_dir` holds its `captions.jsonl`: a row an image, `image/key` and
`<language>.caption` with some captions; pictures in `images/<key>.jpg`.
"""

from input_pipeline import text_files
from input_pipeline.datasets import _readers


class Builder(_readers.Builder):
  """About two captions an image and language, all of them for testing."""

  def items(self) -> list[_readers.Item]:
    path = text_files.find(self.folder, 'captions.jsonl')
    codes: dict[str, str] = {}
    items = []
    for where, row in text_files.rows(path, ('image/key',), once='image/key'):
      captions = []
      for theirs, value in row.items():
        if isinstance(value, dict) and 'caption' in value:
          if theirs not in codes:
            codes[theirs] = self.language(theirs, path)
          captions += [
              (codes[theirs], text)
              for text in text_files.texts(value['caption'], where)
              if codes[theirs]]
      key = str(row['image/key'])
      items.append(self.item(f'{key}.jpg', 'test', captions, image_id=key))
    return items
