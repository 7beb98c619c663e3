"""The languages: one row each, which leaves out what the defaults say."""

import dataclasses

# What the project's own models are trained and evaluated in; the latter were
# never seen in a caption: zero-shot.
SUPERVISED = ('en', 'de', 'fr', 'es', 'cs', 'ru', 'ja', 'zh_CN', 'ar', 'hi',
              'tr', 'hu', 'fi')
HELD_OUT = ('it', 'ko', 'vi', 'th', 'pl', 'uk', 'sv', 'he', 'el', 'ka', 'am',
            'zu')
EVALUATED = SUPERVISED + HELD_OUT


@dataclasses.dataclass(frozen=True)
class Language:
  """A row; a model's language ids are places in a config's list, not here.

  Attributes:
    code: how this project calls it everywhere, and what `captions.jsonl` says.
    name, native_name: in English, and in itself.
    also: what other data sets call it, without regard to case, and `-` is `_`;
      the three letters of ISO 639-3 first.
    tux_paint: Tux Paint's code, if it is another; '' = not in Tux Paint.
    cldr: the same of CLDR's emoji names.
    udhr: the declaration's code, if it is not the first of `also`; '' = none.
    freedict: FreeDict's code; '' = none.
  """
  code: str
  name: str
  native_name: str
  also: tuple[str, ...] = ()
  tux_paint: str | None = None
  cldr: str | None = None
  udhr: str | None = None
  freedict: str = ''

  @property
  def sources(self) -> dict[str, str]:
    """What each source calls it, '' where a source has none of it."""
    return dict(
        tux_paint=self.code if self.tux_paint is None else self.tux_paint,
        cldr=self.code if self.cldr is None else self.cldr,
        udhr=(*self.also, self.code)[0] if self.udhr is None else self.udhr,
        freedict=self.freedict)


# The release's `--lgs`: the 100 editions of Wikipedia that it was trained on; a
# language's row in M3P's table is its place here.
EDITIONS = (
    'af', 'als', 'am', 'an', 'ang', 'ar', 'arz', 'ast', 'az', 'bar', 'be',
    'bg', 'bn', 'br', 'bs', 'ca', 'ceb', 'ckb', 'cs', 'cy', 'da', 'de', 'el',
    'en', 'eo', 'es', 'et', 'eu', 'fa', 'fi', 'fr', 'fy', 'ga', 'gan', 'gl',
    'gu', 'he', 'hi', 'hr', 'hu', 'hy', 'ia', 'id', 'is', 'it', 'ja', 'jv',
    'ka', 'kk', 'kn', 'ko', 'ku', 'la', 'lb', 'lt', 'lv', 'mk', 'ml', 'mn',
    'mr', 'ms', 'my', 'nds', 'ne', 'nl', 'nn', 'no', 'oc', 'pl', 'pt', 'ro',
    'ru', 'scn', 'sco', 'sh', 'si', 'simple', 'sk', 'sl', 'sq', 'sr', 'sv',
    'sw', 'ta', 'te', 'th', 'tl', 'tr', 'tt', 'uk', 'ur', 'uz', 'vi', 'war',
    'wuu', 'yi', 'zh', 'zh_classical', 'zh_min_nan', 'zh_yue')
# Where an edition's code means another language than in ISO 639-3: `als` is
# Tosk Albanian there. Simple English has no code: it is English.
EDITION_CODES = {'als': 'gsw', 'simple': 'en'}

TABLE = (
    Language('af', 'Afrikaans', 'Afrikaans', ('afr',), freedict='afr'),
    Language('am', 'Amharic', 'አማርኛ', ('amh',)),
    Language('an', 'Aragonese', 'aragonés', ('arg',), cldr='', udhr=''),
    Language('ang', 'Old English', 'Ænglisc', tux_paint='', cldr='', udhr=''),
    Language('ar', 'Arabic', 'العربية', ('arb', 'ara'), freedict='ara'),
    Language('arz', 'Egyptian Arabic', 'مصرى', tux_paint='', cldr='', udhr=''),
    Language('ast', 'Asturian', 'asturianu'),
    Language('az', 'Azerbaijani', 'azərbaycan', ('azj', 'aze'), tux_paint='',
             udhr='azj_latn'),
    Language('bar', 'Bavarian', 'Boarisch', tux_paint='', cldr='', udhr=''),
    Language('be', 'Belarusian', 'беларуская', ('bel',)),
    Language('bg', 'Bulgarian', 'български', ('bul',), freedict='bul'),
    Language('bn', 'Bengali', 'বাংলা', ('ben',), tux_paint=''),
    Language('br', 'Breton', 'brezhoneg', ('bre',), tux_paint=''),
    Language('bs', 'Bosnian', 'bosanski', ('bos',), tux_paint='',
             udhr='bos_latn'),
    Language('ca', 'Catalan', 'català', ('cat',)),
    Language('ceb', 'Cebuano', 'Cebuano', tux_paint=''),
    Language('ckb', 'Central Kurdish', 'کوردی', tux_paint=''),
    Language('cs', 'Czech', 'čeština', ('ces', 'cz', 'cze'), freedict='ces'),
    Language('cy', 'Welsh', 'Cymraeg', ('cym', 'wel'), freedict='cym'),
    Language('da', 'Danish', 'dansk', ('dan', 'dk'), freedict='dan'),
    Language('de', 'German', 'Deutsch', ('deu', 'ger'), udhr='deu_1996',
             freedict='deu'),
    Language('el', 'Greek', 'Ελληνικά', ('ell', 'gre', 'gr'),
             udhr='ell_monotonic', freedict='ell'),
    Language('en', 'English', 'English', ('eng', 'en_US', 'en_GB'),
             freedict='eng'),
    Language('eo', 'Esperanto', 'Esperanto', ('epo',), cldr=''),
    Language('es', 'Spanish', 'español', ('spa',), freedict='spa'),
    Language('et', 'Estonian', 'eesti', ('est', 'ekk'), tux_paint=''),
    Language('eu', 'Basque', 'euskara', ('eus', 'baq')),
    Language('fa', 'Persian', 'فارسی', ('pes', 'fas', 'per'), udhr='pes_1'),
    Language('fi', 'Finnish', 'suomi', ('fin',), freedict='fin'),
    Language('fil', 'Filipino', 'Filipino', ('tl', 'tgl'), tux_paint='',
             udhr='tgl'),
    Language('fr', 'French', 'français', ('fra', 'fre'), freedict='fra'),
    Language('fy', 'Frisian', 'Frysk', ('fry',), tux_paint='', cldr='',
             udhr='fri'),
    Language('ga', 'Irish', 'Gaeilge', ('gle',), freedict='gle'),
    Language('gan', 'Gan Chinese', '贛語', tux_paint='', cldr=''),
    Language('gd', 'Scottish Gaelic', 'Gàidhlig', ('gla',)),
    Language('gl', 'Galician', 'galego', ('glg',)),
    Language('gsw', 'Alemannic', 'Alemannisch', tux_paint='', cldr='', udhr=''),
    Language('gu', 'Gujarati', 'ગુજરાતી', ('guj',)),
    Language('ha', 'Hausa', 'Hausa', ('hau',), tux_paint='', udhr='hau_NG'),
    Language('he', 'Hebrew', 'עברית', ('heb', 'iw')),
    Language('hi', 'Hindi', 'हिन्दी', ('hin',), freedict='hin'),
    Language('hr', 'Croatian', 'hrvatski', ('hrv',), freedict='hrv'),
    Language('hu', 'Hungarian', 'magyar', ('hun',), freedict='hun'),
    Language('hy', 'Armenian', 'հայերեն', ('hye', 'arm')),
    Language('ia', 'Interlingua', 'interlingua', ('ina',), tux_paint=''),
    Language('id', 'Indonesian', 'Indonesia', ('ind', 'in'), freedict='ind'),
    Language('ig', 'Igbo', 'Igbo', ('ibo',), tux_paint=''),
    Language('is', 'Icelandic', 'íslenska', ('isl', 'ice')),
    Language('it', 'Italian', 'italiano', ('ita',), freedict='ita'),
    Language('ja', 'Japanese', '日本語', ('jpn', 'jp'), freedict='jpn'),
    Language('jv', 'Javanese', 'Jawa', ('jav', 'jw'), tux_paint=''),
    Language('ka', 'Georgian', 'ქართული', ('kat', 'geo')),
    Language('kab', 'Kabyle', 'Taqbaylit', udhr=''),
    Language('kk', 'Kazakh', 'қазақ тілі', ('kaz',), tux_paint=''),
    Language('km', 'Khmer', 'ខ្មែរ', ('khm',)),
    Language('kn', 'Kannada', 'ಕನ್ನಡ', ('kan',), tux_paint=''),
    Language('ko', 'Korean', '한국어', ('kor',)),
    Language('ku', 'Kurdish', 'kurdî', ('kmr', 'kur')),
    Language('ky', 'Kyrgyz', 'кыргызча', ('kir',), tux_paint=''),
    Language('la', 'Latin', 'Latina', ('lat',), tux_paint='', cldr=''),
    Language('lb', 'Luxembourgish', 'Lëtzebuergesch', ('ltz',), tux_paint=''),
    Language('lo', 'Lao', 'ລາວ', ('lao',), tux_paint=''),
    Language('lt', 'Lithuanian', 'lietuvių', ('lit',), freedict='lit'),
    Language('lv', 'Latvian', 'latviešu', ('lav', 'lvs')),
    Language('lzh', 'Classical Chinese', '文言', ('zh_classical',),
             tux_paint='', cldr='', udhr=''),
    Language('mg', 'Malagasy', 'Malagasy', ('plt', 'mlg'), tux_paint='',
             cldr=''),
    Language('mk', 'Macedonian', 'македонски', ('mkd', 'mac')),
    Language('ml', 'Malayalam', 'മലയാളം', ('mal',)),
    Language('mn', 'Mongolian', 'монгол', ('khk', 'mon'), tux_paint=''),
    Language('mr', 'Marathi', 'मराठी', ('mar',)),
    Language('ms', 'Malay', 'Melayu', ('zsm', 'msa', 'may'), udhr='mly_latn'),
    Language('my', 'Burmese', 'မြန်မာ', ('mya', 'bur'), tux_paint=''),
    Language('nan', 'Min Nan Chinese', '閩南語', ('zh_min_nan',), tux_paint='',
             cldr='', udhr='nan'),
    Language('nb', 'Norwegian Bokmål', 'norsk bokmål', ('nob', 'no', 'nor'),
             cldr='no', freedict='nor'),
    Language('nds', 'Low German', 'Plattdüütsch', tux_paint='', cldr=''),
    Language('ne', 'Nepali', 'नेपाली', ('nep', 'npi'), tux_paint=''),
    Language('nl', 'Dutch', 'Nederlands', ('nld', 'dut'), freedict='nld'),
    Language('nn', 'Norwegian Nynorsk', 'norsk nynorsk', ('nno',)),
    Language('oc', 'Occitan', 'occitan', ('oci',), tux_paint='', udhr='oci_1'),
    Language('om', 'Oromo', 'Oromoo', ('gaz', 'orm'), tux_paint='', udhr='gax'),
    Language('pa', 'Punjabi', 'ਪੰਜਾਬੀ', ('pan',), tux_paint=''),
    Language('pl', 'Polish', 'polski', ('pol',), freedict='pol'),
    Language('ps', 'Pashto', 'پښتو', ('pbu', 'pus', 'pst'), tux_paint=''),
    Language('pt', 'Portuguese', 'português', ('por', 'pt_PT'), cldr='pt-PT',
             udhr='por_PT', freedict='por'),
    Language('pt_BR', 'Portuguese (Brazil)', 'português (Brasil)', cldr='pt',
             udhr='por_BR'),
    Language('ro', 'Romanian', 'română', ('ron', 'rum', 'mo'), udhr='ron_2006'),
    Language('ru', 'Russian', 'русский', ('rus',), freedict='rus'),
    Language('scn', 'Sicilian', 'sicilianu', tux_paint='', cldr='', udhr=''),
    Language('sco', 'Scots', 'Scots', tux_paint='', cldr=''),
    Language('sd', 'Sindhi', 'سنڌي', ('snd',), tux_paint='', udhr=''),
    Language('sh', 'Serbo-Croatian', 'srpskohrvatski', ('hbs',), tux_paint='',
             cldr='', udhr=''),
    Language('si', 'Sinhala', 'සිංහල', ('sin',), tux_paint=''),
    Language('sk', 'Slovak', 'slovenčina', ('slk', 'slo')),
    Language('sl', 'Slovenian', 'slovenščina', ('slv',)),
    Language('so', 'Somali', 'Soomaali', ('som',), tux_paint=''),
    Language('sq', 'Albanian', 'shqip', ('als', 'sqi', 'alb')),
    Language('sr', 'Serbian', 'српски', ('srp', 'sr_Cyrl'), udhr='srp_cyrl'),
    Language('sr_Latn', 'Serbian (Latin)', 'srpski', tux_paint='sr@latin',
             cldr='sr-Latn', udhr='srp_latn'),
    Language('su', 'Sundanese', 'Basa Sunda', ('sun',), tux_paint=''),
    Language('sv', 'Swedish', 'svenska', ('swe',), freedict='swe'),
    Language('sw', 'Swahili', 'Kiswahili', ('swh', 'swa'), freedict='swh'),
    Language('ta', 'Tamil', 'தமிழ்', ('tam',)),
    Language('te', 'Telugu', 'తెలుగు', ('tel',)),
    Language('th', 'Thai', 'ไทย', ('tha',)),
    Language('tr', 'Turkish', 'Türkçe', ('tur',), freedict='tur'),
    Language('tt', 'Tatar', 'татар', ('tat',), tux_paint=''),
    Language('ug', 'Uyghur', 'ئۇيغۇرچە', ('uig',), tux_paint='',
             udhr='uig_arab'),
    Language('uk', 'Ukrainian', 'українська', ('ukr', 'ua')),
    Language('ur', 'Urdu', 'اردو', ('urd',), tux_paint=''),
    Language('uz', 'Uzbek', 'o‘zbek', ('uzn', 'uzb'), tux_paint='',
             udhr='uzn_latn'),
    Language('vi', 'Vietnamese', 'Tiếng Việt', ('vie',)),
    Language('war', 'Waray', 'Winaray', tux_paint='', cldr=''),
    Language('wuu', 'Wu Chinese', '吴语', tux_paint='', cldr=''),
    Language('xh', 'Xhosa', 'isiXhosa', ('xho',), tux_paint=''),
    Language('yi', 'Yiddish', 'ייִדיש', ('ydd', 'yid', 'ji'), tux_paint='',
             cldr=''),
    Language('yo', 'Yoruba', 'Yorùbá', ('yor',), tux_paint=''),
    Language('yue', 'Cantonese', '粵語', ('zh_yue',), tux_paint='', udhr='yue'),
    Language('zh_CN', 'Chinese (simplified)', '简体中文',
             ('cmn', 'zh', 'zho', 'zh_Hans', 'zhs', 'chi', 'cn', 'zho_Hans',
              'zh_SG'), cldr='zh', udhr='cmn_hans'),
    Language('zh_TW', 'Chinese (traditional)', '繁體中文',
             ('zh_Hant', 'zht', 'zho_Hant', 'zh_HK'), cldr='zh-Hant',
             udhr='cmn_hant'),
    Language('zu', 'Zulu', 'isiZulu', ('zul',)),
)
