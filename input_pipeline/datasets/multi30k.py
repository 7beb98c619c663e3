"""Multi30K as retrieval papers use it: five captions in en and de, one in fr
and cs.

`--raw_dir` is the repository multi30k/dataset: Task 2 in English and German,
Task 1 in the languages that only it has.
"""

from input_pipeline import builder
from input_pipeline.caption_files import annotations
from input_pipeline.caption_files import multi30k


class Builder(annotations.Builder):
  """29,000 / 1,014 / 1,000 images of Flickr30k."""

  def items(self) -> list[builder.ImageItem]:
    """Returns the images with the captions of both tasks."""
    merged = multi30k.captions_of_task(self, 2)
    written = {code for _, captions in merged.values() for code, _ in captions}
    for name, (split, captions) in multi30k.captions_of_task(self, 1).items():
      merged.setdefault(name, (split, []))[1].extend(
          caption for caption in captions if caption[0] not in written)
    return [self.item(name, split, captions)
            for name, (split, captions) in merged.items()]
