"""Text from outside (names of files, sentences, answers) as it may be shown to a reader, on a page or on a terminal."""

import re

# Control characters, ANSI escapes, changes of direction and what has no shape: shown as their code, so that none can act or hide.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def inert(text):
    """Text in which what acts on a reader's eye or terminal without being seen is its code (``\\u202e``)."""
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
