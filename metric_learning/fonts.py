"""Fonts that have the letters of names: matplotlib's own, and for Chinese, Japanese and Korean what the machine has."""

import unicodedata
from functools import cache
from pathlib import Path

# On Linux, macOS and Windows; the best first.
EASTERN = (
    *(f"Noto Sans CJK {place}" for place in ("SC", "TC", "HK", "JP", "KR")),
    *(f"Noto Sans {place}" for place in ("SC", "TC", "JP", "KR")),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "NanumGothic"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti TC", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic"),
)


@cache
def eastern() -> dict[str, str]:
    """Those of EASTERN that this machine has, name -> file."""
    from matplotlib.font_manager import fontManager

    files = {font.name: font.fname for font in fontManager.ttflist}
    return {name: files[name] for name in EASTERN if name in files}


def file_for(text: str) -> str:
    """A font file for Latin, Greek, Cyrillic and more; for text with wide letters one that has them, if any."""
    import matplotlib

    wide = any(unicodedata.east_asian_width(letter) in "WFH" for letter in text)
    own = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")  # Pillow's may be for ASCII only
    return next(iter(eastern().values()), own) if wide else own
