"""The rows of the release's language table.

Source: reference.md, section 2 (`--lgs`).
"""

# A language's row is its place here.
LANGUAGES = (
    'af', 'als', 'am', 'an', 'ang', 'ar', 'arz', 'ast', 'az', 'bar', 'be',
    'bg', 'bn', 'br', 'bs', 'ca', 'ceb', 'ckb', 'cs', 'cy', 'da', 'de',
    'el', 'en', 'eo', 'es', 'et', 'eu', 'fa', 'fi', 'fr', 'fy', 'ga', 'gan',
    'gl', 'gu', 'he', 'hi', 'hr', 'hu', 'hy', 'ia', 'id', 'is', 'it', 'ja',
    'jv', 'ka', 'kk', 'kn', 'ko', 'ku', 'la', 'lb', 'lt', 'lv', 'mk', 'ml',
    'mn', 'mr', 'ms', 'my', 'nds', 'ne', 'nl', 'nn', 'no', 'oc', 'pl', 'pt',
    'ro', 'ru', 'scn', 'sco', 'sh', 'si', 'simple', 'sk', 'sl', 'sq', 'sr',
    'sv', 'sw', 'ta', 'te', 'th', 'tl', 'tr', 'tt', 'uk', 'ur', 'uz', 'vi',
    'war', 'wuu', 'yi', 'zh', 'zh_classical', 'zh_min_nan', 'zh_yue',)
# Codes of theirs that are called otherwise in configs/languages.
OURS = {'no': 'nb', 'tl': 'fil', 'zh': 'zh_CN'}
