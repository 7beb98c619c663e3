"""`--mode=generate`: captions of a prepared split, and how good they are.

With `generate.source` they are translations: of each picture's first caption in
that language, and of the picture.
Letters: I pictures, N captions.
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import json
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import paths
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import output
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import examples
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.generation import decoding
from m3p_jax.generation import scores

# Captions of each language that are printed; the file has all.
_SHOWN = 5


def generate(config: ml_collections.ConfigDict, workdir: str | paths.Path, *,
             given: Collection[str] | None = None) -> dict[str, Any]:
  """Writes captions of `config.evaluation`'s split; returns their scores.

  Weights: see `weights.source`. Writes WORKDIR/captions/DATASET_SPLIT.jsonl, a
  line a picture and language, beside it the scores in JSON, and report.html.
  `given` are the dotted keys that the command line set; None = called from
  Python.

  Raises:
    UserError: anything in the config that cannot be meant, weights without a
      decoder, or a workdir that cannot be written to.
  """
  workdir, c = paths.of(workdir), config.evaluation
  settings = _settings(config.generate)
  output.check_writable(workdir, '--workdir')
  weights = weights_lib.load(
      weights_lib.source(config, workdir, given=given),
      model=config.model.to_dict(), given=given or ())
  languages = check(weights, config.generate.language)
  from input_pipeline import evaluation_set  # Reads by TensorFlow.
  data_dir = c.data_dir or config.data.data_dir
  weights_lib.check_data(weights, data_dir, c.dataset)
  pictures = evaluation_set.load(
      data_dir, c.dataset, c.split, [languages_lib.ALL],
      text_room=weights.config.text_room if config.generate.source else None)
  engine = engine_lib.Engine(
      weights.params, weights.config, batch_size=config.generate.batch_size,
      dtype=weights.dtype)
  lines, found = [], {}
  picture_I, source, texts = _sources(config, weights, pictures)
  # Before anything is written of them.
  shown = examples.draw(
      [pictures.image_ids[i] for i in picture_I], data_dir=data_dir,
      dataset=c.dataset, seed=config.seed)
  regions = jax.tree.map(lambda x: x[picture_I], (
      pictures.regions if config.generate.use_picture else None))
  for language in languages:
    best = [one[0] for one in write(
        weights, engine, regions, settings, language, source=source,
        seed=config.seed, title=f'captions in {language}')]
    references = _references(pictures, language, picture_I)
    lines += [
        {'image': pictures.image_ids[i], 'language': language, 'caption': text,
         'score': score} | ({'source': texts[i]} if source else {})
        | ({'references': one} if one else {})
        for i, (text, score), one in zip(
            picture_I, best, references, strict=True)]
    found[language] = measure([text for text, _ in best], references)
  if jax.process_index():
    return found  # Hosts write together; the first one says what.
  path = workdir / 'captions' / f'{_name(config)}.jsonl'
  _save(path, lines, {
      'checkpoint': str(weights.path), 'step': weights.step,
      'weights': weights_lib.fingerprint_of(weights.path),
      'generate': config.generate.to_dict(), 'run': provenance.collect(),
      'languages': found}, shown)
  report.write(workdir)
  _show(lines, found, path)
  return found


def _save(path: paths.Path, lines: Sequence[Mapping[str, Any]],
          content: Mapping[str, Any], shown: Mapping[str, str]) -> None:
  """Writes what was written, and beside it the scores and what is shown."""
  path.parent.mkdir(parents=True, exist_ok=True)
  results.write_text(path, ''.join(
      json.dumps(line, ensure_ascii=False) + '\n' for line in lines))
  results.write(path.with_suffix('.json'), {**content, 'examples': [
      {'picture': address, 'captions': [
          line for line in lines if line['image'] == image_id]}
      for image_id, address in shown.items()]})


def check(weights: weights_lib.Weights,
          languages: Sequence[str]) -> Sequence[str]:
  """Returns the languages, which the weights can write.

  Raises:
    UserError: they cannot.
  """
  if not weights.can_write:
    objectives = weights.manifest.get('objectives')
    raise errors.UserError(
        f'{weights.path} cannot write: it was trained on '
        f'{", ".join(objectives or ()) or "no text to write"}; allowed: '
        'weights that `captioning` trained')
  if not languages:
    raise errors.UserError(
        'generate.language is empty; allowed: '
        f'{", ".join(weights.language_ids)}')
  for language in languages:
    errors.check_choice('generate.language', language, weights.language_ids)
  if len(languages) > 1 and weights.config.num_languages == 1:
    raise errors.UserError(
        f'generate.language is {", ".join(languages)}; allowed: one, for '
        f'{weights.path} has no language table (model.num_languages) to tell '
        'them apart')
  return languages


def _name(config: ml_collections.ConfigDict) -> str:
  """Returns the name of the file, which tells what was read."""
  c, source = config.evaluation, config.generate.source
  return f'{c.dataset}_{c.split}' + (source and f'_from_{source}' + (
      '' if config.generate.use_picture else '_alone'))


def _sources(config: ml_collections.ConfigDict, weights: weights_lib.Weights,
             pictures: Any,
             ) -> tuple[np.ndarray, dict[str, Any], dict[int, str]]:
  """Returns pictures to write of, their sources for an engine, and as written.

  Raises:
    UserError: weights do not know the sources' language, or no picture has one.
  """
  name, use_picture = config.generate.source, config.generate.use_picture
  if not name:
    if not use_picture:
      raise errors.UserError(
          'generate.use_picture is False; allowed: with generate.source, the '
          'language to translate from')
    return np.arange(len(pictures.image_ids)), {}, {}
  errors.check_choice('generate.source', name, weights.language_ids)
  errors.check_choice('generate.source', name, pictures.captions)
  captions = pictures.captions[name]
  first = {picture: caption for caption, picture
           in reversed(captions.written_M2.tolist())}
  picture_I = np.array(sorted(first))
  caption_I = np.array([first[picture] for picture in picture_I.tolist()])
  return picture_I, {
      'source_ids_BL': captions.token_ids_NL[caption_I],
      'source_mask_BL': captions.text_mask_NL[caption_I],
      'source_language_B': np.full(
          len(caption_I), weights.language_ids[name], np.int32)}, {
              picture: captions.texts[first[picture]] for picture in first}


def write(weights: weights_lib.Weights, engine: engine_lib.Engine,
          regions: Any, settings: decoding.Settings, language: str, *,
          source: Mapping[str, Any] | None = None, seed: int = 0,
          title: str = '') -> list[list[tuple[str, float]]]:
  """Returns the texts of each picture and their scores, the best first."""
  number = (None if weights.config.num_languages == 1
            else weights.language_ids[language])
  settings = dataclasses.replace(settings, max_length=min(
      settings.max_length, weights.config.max_positions))
  written = engine.write(
      regions, settings, language=number, source=source, seed=seed,
      title=title)
  tokenizer = tokenizer_lib.load()
  return [[(tokenizer.decode(ids), score) for ids, score in zip(
      *one, strict=True)] for one in zip(
          written.token_ids_BKL.tolist(), written.score_BK.tolist(),
          strict=True)]


def measure(texts: Sequence[str], references: Sequence[Sequence[str]],
            ) -> dict[str, Any]:
  """Returns scores of the pictures that have references."""
  pairs = [(text, one) for text, one in zip(texts, references, strict=True)
           if one]
  if not pairs:
    return {'captions': len(texts), 'with_references': 0}
  texts, references = map(list, zip(*pairs, strict=True))
  each = scores.cider(texts, references)
  found: dict[str, Any] = {
      'captions': len(texts), 'with_references': len(pairs),
      'cider_d': sum(each) / len(each)}
  if measured := scores.bleu(texts, references):
    found |= {'bleu': measured[0], 'bleu_signature': measured[1]}
    found['chrf'], found['chrf_signature'] = scores.chrf(texts, references)
  return found


def _references(pictures: Any, language: str,
                picture_I: np.ndarray) -> list[list[str]]:
  """Returns pictures' captions by people, [] where there is none."""
  found: list[list[str]] = [[] for _ in pictures.image_ids]
  if captions := pictures.captions.get(language):
    for caption, picture in captions.written_M2.tolist():
      found[picture].append(captions.texts[caption])
  return [found[i] for i in picture_I]


def _settings(c: ml_collections.ConfigDict) -> decoding.Settings:
  for key, least, most in (
      ('num_beams', 1, 64), ('length_penalty', 0, 10), ('temperature', 0, 100),
      ('top_p', 0.001, 1), ('max_length', 2, 512), ('batch_size', 1, 4096)):
    if not least <= c[key] <= most:
      raise errors.UserError(
          f'generate.{key} is {c[key]}; allowed: {least} to {most}')
  return decoding.Settings(**{
      field.name: c[field.name]
      for field in dataclasses.fields(decoding.Settings)})


def _show(lines: Sequence[Mapping[str, Any]],
          found: Mapping[str, Mapping[str, Any]], path: paths.Path) -> None:
  for language, one in found.items():
    shown = [line for line in lines if line['language'] == language][:_SHOWN]
    print('\n'.join(['', *(
        f'{line["image"]}  {language}: {line["caption"]}' for line in shown)]))
    if one['with_references']:
      bleu = (f'BLEU-4 {one["bleu"]:.1f}, chrF {one["chrf"]:.1f}, '
              if 'bleu' in one else
              'BLEU and chrF need requirements-metrics.txt, ')
      print(f'{language}: {bleu}CIDEr-D {one["cider_d"]:.3f} on '
            f'{one["with_references"]} pictures')
  print(f'\nwritten to {path}')
