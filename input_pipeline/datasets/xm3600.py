"""XM3600 (Crossmodal-3600): 3,600 test images in 36 languages.

`--raw_dir` holds its `captions.jsonl`: a row an image, `image/key` and
`<language>.caption` with some captions; pictures in `images/<key>.jpg`.
"""

from input_pipeline import builder
from input_pipeline.caption_files import annotations


class Builder(annotations.Builder):
  """About two captions an image and language, all of them for testing."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of all known languages."""
    path = annotations.find(self.folder, 'captions.jsonl')
    codes: dict[str, str] = {}
    items = []
    for where, row in annotations.rows(path, ('image/key',), once='image/key'):
      captions = []
      for theirs, value in row.items():
        if isinstance(value, dict) and 'caption' in value:
          if theirs not in codes:
            codes[theirs] = self.language(theirs, path)
          captions += [
              (codes[theirs], text)
              for text in annotations.texts(value['caption'], where)
              if codes[theirs]]
      key = str(row['image/key'])
      items.append(self.item(f'{key}.jpg', 'test', captions, image_id=key))
    return items
