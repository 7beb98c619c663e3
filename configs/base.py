"""Every key of m3p_jax once: its meaning, unit, default and source.

Other configs start from `get_config()` and only change values. Batch sizes are
global (over all devices and hosts).
"""

import ml_collections

ConfigDict = ml_collections.ConfigDict


def model_config() -> ConfigDict:
  """Returns the geometry of the released M3P (base size), and how it is run.

  Dropout, dtype and remat shape no parameter: no checkpoint keeps them.
  """
  model = ConfigDict()
  # Rows of the word table; padded to a multiple of 128 so that it shards.
  model.vocab_size = 250_002
  # Numbers in a hidden state; a multiple of num_heads.
  model.width = 768
  # Heads of an attention; each has width / num_heads numbers.
  model.num_heads = 12
  # Hidden units of a layer's MLP.
  model.mlp_width = 3072
  # Transformer layers, shared by text and pictures.
  model.num_layers = 12
  # Learned positions, of regions and text together.
  model.max_positions = 514
  # Position of the first token of a caption, however many regions its picture
  # has (M3P: 100); 0 = right behind those that a row is padded to.
  model.text_position = 0
  # Numbers in one region's feature vector.
  model.region_feature_dim = 2048
  # Detector classes + 1; class 0 is background.
  model.num_region_classes = 1601
  # 1 = no language embeddings.
  model.num_languages = 100
  # Width of the shared space of the dual encoder.
  model.embedding_dim = 384
  # Share of activations dropped, everywhere but on attention weights.
  model.dropout = 0.1
  # Share of attention weights dropped.
  model.attention_dropout = 0.1
  # Share of the numbers of region features dropped, the same ones of all
  # regions of a picture.
  model.region_dropout = 0.0
  # Added to the variance in every LayerNorm.
  model.layer_norm_epsilon = 1e-12
  # Layers of the optional region refiner; 0 = off, as in the published recipe.
  model.refiner_layers = 0
  # Divide features and boxes by their norms; False where they come so.
  model.normalise_regions = True
  # What the match score reads: 'first', M3P's last state of position 0, or
  # 'first+product', with the product of the picture's vector and the
  # caption's, both from the joint states.
  model.match_head = 'first'
  # The head that matches two captions in one text, off in the published recipe.
  model.caption_match = False
  # Cross-attention in every layer, so that the same weights write text.
  model.decoder = False
  # What a writer reads of a picture: its regions alone, as M3P's decoder does,
  # or in one row with a text, and the language to write in beside them.
  model.joint_memory = False
  # Heads that tasks bring with them: (task, file of model/heads/, numbers out,
  # states in); a task adds its own.
  model.heads = ()
  # Activations: 'float32', 'bfloat16' or 'auto': bfloat16 on TPU, GPU and CPUs
  # with AMX or AVX-512 BF16, float32 on others.
  model.dtype = 'auto'
  # What a layer keeps for its backward pass: 'none' = all that autodiff asks
  # for; 'projections' = its matrix products (right for a TPU); 'input' = what
  # enters it. The rest is computed again.
  model.remat = 'none'
  return model


def task_config(objective: str, stream: str, batch_size: int,
                weight: float = 1.0, rows: str = 'own',
                weight_schedule: str = '', data: dict | None = None,
                noise: dict | None = None, **options) -> ConfigDict:
  """Returns one task: an objective of `objectives/` on rows of one stream.

  `stream`: the kind of its rows, see `input_pipeline/streams.py`.
  `noise`: adversarial steps, see `m3p_jax/adversary.py`: `dict(steps=2)`.
  `data`: what it reads otherwise than the config's `data.text`, or
  `data.image_text` for other kinds: `dict(datasets=('xvnli',))`.

  `weight_schedule`: factors of its weight by step, linear between, '' = 1
  throughout: '0:0,1000:1' lets it in over a thousand steps.
  Its rows are its 'own'; or 'shared' with the other such tasks of the stream,
  each row read once: the largest batch, or every n-th row of it.
  """
  return ConfigDict(dict(
      objective=objective, stream=stream, batch_size=batch_size,
      weight=weight, weight_schedule=weight_schedule, rows=rows,
      data=data or {}, noise=noise or {}, options=options))


def code_switch_config() -> ConfigDict:
  """Returns code-switching switched off."""
  switch = ConfigDict()
  # Probability β that a word of a chosen caption is replaced. Paper, 3.2.
  switch.rate = 0.0
  # Share of captions that are considered for switching at all.
  switch.sentence_rate = 1.0
  # 'every' word with probability `rate` (the paper), or exactly 'one' word a
  # caption (the release's pre-training).
  switch.mode = 'every'
  # One target language drawn per 'caption' or per 'word'.
  switch.language_per = 'caption'
  # Target languages; ('all',) = those that have a dictionary.
  switch.languages = ()
  # 'ours': the language is drawn first, the first translations come more often.
  # 'release': of each word alone, among the languages that have it; of its
  # translations each as often (`language_per` is not read).
  switch.rule = 'ours'
  # Folders of dictionaries, relative to `data.data_dir`; a phrase that several
  # have has the first one's translations.
  switch.dictionary = ('dictionaries/freedict',)
  # A control: translations permuted among the words of a language by this
  # seed; negative = off.
  switch.shuffle_seed = -1
  return switch


def data_config() -> ConfigDict:
  """Returns what is read: no datasets."""
  data = ConfigDict()
  # Folder of prepared datasets and dictionaries.
  data.data_dir = 'data'
  # All languages the model knows; a language's id is its index here.
  data.languages = ('en',)
  # Records that a host reads at the same time: rows a second times the seconds
  # that one takes to come.
  data.parallel_reads = 16
  data.text = ConfigDict()
  # Prepared text datasets, mixed by their sizes.
  data.text.datasets = ()
  # Languages of the text stream, of those above; ('all',) = those that the
  # datasets have.
  data.text.languages = ('en',)
  # Languages are drawn with p ∝ n^alpha.
  data.text.alpha = 0.7
  # Ids in a row, `<s>` and `</s>` included; longer rows are cut.
  data.text.max_length = 128
  # Fill rows with one text after the other, `</s>` between (the release);
  # False: a text a row, cut or padded, which is enough for short ones.
  data.text.concatenate = False
  data.image_text = ConfigDict()
  # Prepared datasets of captioned pictures, mixed by their sizes.
  data.image_text.datasets = ()
  # Languages of the captions that are read, as of text; what is switched is
  # below.
  data.image_text.languages = ('en',)
  # As of text.
  data.image_text.alpha = 0.7
  # Ids in a caption, `<s>` and `</s>` included; longer ones are cut.
  data.image_text.max_length = 64
  # Of one split's datasets together: what is larger is read from the records
  # row by row instead of being kept in memory. The rows are the same.
  data.image_text.memory_bytes = 4_000_000_000
  # Few-shot: training pictures of each dataset in each language; 0 = all.
  data.image_text.shots = 0
  # Split that is trained on: a few-shot one of IGLUE is 'train_1', 'train_5' …
  data.image_text.train_split = 'train'
  # Languages of the texts that a task of stream 'parallel' reads beside each.
  data.image_text.sources = ('en',)
  data.image_text.code_switch = code_switch_config()
  return data


def optimizer_config() -> ConfigDict:
  """Returns the release's optimizer."""
  optimizer = ConfigDict()
  # Adam's, at the end of the warm-up.
  optimizer.learning_rate = 1e-4
  # 'inverse_sqrt' (the release), 'cosine' or 'constant', after warm-up.
  optimizer.schedule = 'inverse_sqrt'
  # Steps in which the rate rises from (almost) 0.
  optimizer.warmup_steps = 4_000
  # Decay of Adam's mean of gradients.
  optimizer.b1 = 0.9
  # Decay of Adam's mean of squared gradients.
  optimizer.b2 = 0.98
  # Added to the root of the second mean.
  optimizer.eps = 1e-8
  # The first moment is half of the optimizer's memory: 'float32', or
  # 'bfloat16', which halves it.
  optimizer.first_moment_dtype = 'float32'
  # Decoupled; not applied to biases, LayerNorm and embeddings.
  optimizer.weight_decay = 0.0
  # Gradients are scaled down to this global norm; 0 = off. Release: 5.
  optimizer.clip_norm = 5.0
  # Regular expressions on parameter paths ('a/b/c'), searched in order:
  # learning rate times the factor of the first that matches; 0 = frozen (no
  # gradient, no moments).
  optimizer.rate_factors = ()
  # (Regular expression, rank) of kernels that learn by adapters (LoRA): the
  # product of two thin matrices is added to them, and these alone have moments.
  # The first that matches counts; exports have the kernels, adapters added.
  optimizer.adapters = ()
  # Rate of a layer, as a part of that of the layer above it: 1 = all alike.
  # Heads have the whole, what enters the first layer the least.
  optimizer.layer_decay = 1.0
  # Decay a step of an average of the weights, which is what is validated, saved
  # and exported; it is one more copy of them. 0 = off; 0.999 is usual.
  optimizer.average_decay = 0.0
  return optimizer


def evaluation_config() -> ConfigDict:
  """Returns what is evaluated, searched and served."""
  evaluation = ConfigDict()
  # How queries and right answers are chosen; see docs/protocols.md.
  evaluation.protocol = 'tux-paint'
  # Prepared set that is evaluated, searched and served.
  evaluation.dataset = 'tux_paint'
  # Empty = `data.data_dir`.
  evaluation.data_dir = ''
  # 'train', 'validation' or 'test'.
  evaluation.split = 'test'
  # Languages to evaluate; ('all',) = every language the set has.
  evaluation.languages = ('all',)
  # Empty = `setting`.
  evaluation.setting = ''
  # 'dual', 'joint' (every pair, exact) or 'rerank' (two stages).
  evaluation.mode = 'joint'
  # Candidates of the dual encoder that the joint encoder re-ranks.
  evaluation.top_k = 20
  # Score of a re-ranked pair = logit_scale · cosine + joint_weight · match
  # logit; negative = the match logit alone.
  evaluation.joint_weight = -1.0
  # Ids in a caption at evaluation, `<s>` and `</s>` included; longer ones are
  # cut and counted. 0 = what the longest caption needs, within `max_positions`.
  evaluation.max_length = 0
  # Pairs or rows in one forward pass.
  evaluation.batch_size = 256
  return evaluation


def generate_config() -> ConfigDict:
  """Returns how --mode=generate writes captions of evaluation.dataset."""
  generate = ConfigDict()
  # Languages to write in.
  generate.language = ('en',)
  # Language of the captions to translate; '' = write of the pictures alone.
  generate.source = ''
  # Look at the pictures when translating.
  generate.use_picture = True
  # Hypotheses kept of a picture; 1 = greedy. Or texts drawn, of which the
  # likeliest is taken.
  generate.num_beams = 4
  # Sums of log-probabilities are divided by ((5 + length) / 6) to this power.
  generate.length_penalty = 0.6
  # Above 0 tokens are drawn, from logits divided by it.
  generate.temperature = 0.0
  # Tokens are drawn among the likeliest, of so much probability together.
  generate.top_p = 1.0
  # Ids in a caption at most, `<s>` and `</s>` included.
  generate.max_length = 32
  # Pictures in one pass: each needs num_beams scores of every word.
  generate.batch_size = 32
  return generate


def get_config() -> ConfigDict:
  """Returns the default config: base size, no data, no tasks."""
  config = ConfigDict()
  # Seed of everything random: initial values, data order, masking, dropout.
  config.seed = 0
  # Devices that the run must find, tpu or gpu, or it ends; empty = any.
  config.require = ''
  # Weights to start from: a checkpoint or a `checkpoints/` folder, 'e5'
  # (multilingual-E5-small from its package), or '' (fresh).
  config.init_from = ''
  # Name of this run's setting in retrieval.json: no_finetune, en, each, all.
  config.setting = 'no_finetune'
  config.model = model_config()
  config.data = data_config()
  # Tasks by name (see objectives/); their losses are summed by weight.
  config.tasks = ConfigDict()
  config.mesh = ConfigDict()
  # Groups of devices, each with a copy of the parameters; -1 = all there are.
  config.mesh.data = -1
  # Devices of a group, which share rows and parameters; -1 = up to 16.
  config.mesh.fsdp = -1
  # Devices that share heads, the MLP and the vocabulary of the same rows.
  config.mesh.model = 1
  config.optimizer = optimizer_config()
  # Parts that a step's rows are worked on in, one after the other: the memory
  # of one part, the gradients of all. A part's negatives are its own rows.
  config.accumulation_steps = 1

  config.plan = ConfigDict()
  # What --mode=plan compiles for: 'v5e:2x4', 'v5p:4x4x4', 'v6e:4x4', …; '' =
  # this machine's devices.
  config.plan.topology = ''
  # So many of that topology, on one network.
  config.plan.slices = 1
  # 'train', 'score' (every pair of plan.pictures and plan.captions by the joint
  # encoder) or 'index' (their vectors by the dual encoder).
  config.plan.job = 'train'
  # Pictures that 'score' and 'index' read; COCO's test pictures.
  config.plan.pictures = 5_000
  # Captions that they read; those pictures' in three languages.
  config.plan.captions = 75_000
  # Find the fastest batch, of those up to the largest that fits, instead of
  # planning the one given.
  config.plan.search = False
  # Regions of a picture: what is planned reads no data.
  config.plan.num_regions = 100
  # table.json of `make bench` on the hosts that will read; no file = not told.
  config.plan.benchmarks = 'runs/bench/table.json'

  # Before the first update, fit the heads to the training data: how often its
  # tokens and classes occur, where the match head's inputs lie; see
  # m3p_jax/first_values.py.
  config.fit_first_values = False
  # Rows of each stream whose tokens and classes are counted for that, and for
  # what validation losses are compared with; every host reads them at a start.
  config.counted_rows = 16_384
  # Batches that the match head is fitted to.
  config.fitting_batches = 4

  # Updates in the whole run.
  config.num_train_steps = 100_000
  # Metrics are written every so many steps.
  config.log_every_steps = 50
  # Validation losses are computed every so many steps; 0 = at the end only.
  config.eval_every_steps = 0
  # Validation batches per task.
  config.eval_batches = 8
  # A checkpoint is saved every so many steps, and at the last.
  config.checkpoint_every_steps = 1_000
  # Newest checkpoints kept.
  config.keep_checkpoints = 3
  # Kept beside them: the checkpoint with the lowest (an accuracy: the highest)
  # of this, like 'mc_mlm/loss'; '' = the tasks' weighted validation losses.
  config.best_metric = ''
  # An update whose loss or gradient is not finite is left out; so many of them
  # in a row end the run.
  config.max_bad_steps = 3
  # Steps to trace into WORKDIR/trace, after the tenth; 0 = none.
  config.profile_steps = 0
  config.evaluation = evaluation_config()
  config.generate = generate_config()
  return config
