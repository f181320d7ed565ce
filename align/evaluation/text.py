"""What became of the text itself: variety, repetition, length.

Words are runs of letters and digits, with the apostrophes inside them, in lower case; whitespace and punctuation
separate words and are not counted. In scripts written without spaces a whole clause is one word.
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case.

    Examples:
        >>> words("Don't stop -- the train's late!")
        ["don't", 'stop', 'the', "train's", 'late']
    """
    return _WORD.findall(text.lower())


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return the share of n-grams of words that are distinct, over all texts together.

    Li et al., 2016, arXiv:1510.03055, section 5: distinct-1 and distinct-2. It falls as the texts grow longer or
    more numerous, so compare only as many texts of like length. No n-gram crosses from one text into the next.

    Args:
        texts: completions.
        n: words in an n-gram, at least 1.

    Returns:
        A number in [0, 1]; 0 where no text has ``n`` words.

    Examples:
        >>> distinct_n(["a rose is a rose"], 1)
        0.6
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(texts: Sequence[str], n: int = 3) -> float:
    """Return the mean share of a text's n-grams that repeat an earlier one of the same text.

    Args:
        texts: completions.
        n: words in an n-gram, at least 1.

    Returns:
        A number in [0, 1), the mean over texts; a text of fewer than ``n`` words repeats nothing and counts 0, and so
        does no text at all.

    Examples:
        >>> repetition(["so so so so"], n=1)
        0.75
    """
    shares = []
    for text in texts:
        grams = _ngrams(text, n)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return sum(shares) / len(shares) if shares else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    found = words(text)
    return [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]
