"""XMP that goes with other pixels than it came with."""

import re

_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>))[2-8]""")
# A gain map, or a film behind the picture; both stay behind
_GONE = re.compile(
    rb"""\s(?:hdrgm:\w+|HDRGainMap:\w+|GCamera:(?:MicroVideo|MotionPhoto)\w*)\s*=\s*(?:"[^"]*"|'[^']*')"""
    rb"""|<((?:hdrgm|HDRGainMap):\w+|GCamera:(?:MicroVideo|MotionPhoto)\w*)\b[^>]*>.*?</\1>"""
    rb"""|<(\w*[Cc]ontainer:Directory)\b[^>]*>.*?</\2>""",
    re.DOTALL,
)
_TOLD = (b"hdrgm:", b"HDRGainMap:", b"MicroVideo", b"MotionPhoto", b"ontainer:Directory")


def adjusted(xmp: bytes) -> bytes:
    """XMP of an upright picture without gain map and film; all else stays as it is."""
    xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
    return _GONE.sub(b"", xmp) if any(word in xmp for word in _TOLD) else xmp
