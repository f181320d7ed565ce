"""Key content of responses: the stretches of text that carry most of what is said, the most telling first.

Extractors share one interface: from answers to a ranking of stretches of each. RAKE is rake-nltk's (Rose et al., 2010),
YAKE is yake's (Campos et al., 2020), TF-IDF scikit-learn's; ``surprisal`` ranks words by how little a model expected
them. All but the last know English stop words only; for other languages, give a function of your own.
"""

import hashlib
import importlib.metadata
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from align.data.rows import DataError
from align.objectives.custom import load_python_file

Stretch: TypeAlias = tuple[int, int]
"""Characters from the first to behind the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion as text and as ids.

    Attributes:
        text: what the ids decode to, special tokens left out.
        ids: of the completion.
        prompt_ids: of what stands before it.
        places: characters of ``text`` that each id stands for; special tokens stand for none.
    """

    text: str
    ids: Sequence[int]
    prompt_ids: Sequence[int]
    places: Sequence[Stretch]


Extractor: TypeAlias = Callable[[Sequence[Answer]], list[list[Stretch]]]
"""From all answers of a data set to stretches of each, disjoint, the most telling first."""
Surprisals: TypeAlias = Callable[[Sequence[Answer]], Iterable[Sequence[float]]]
"""From answers to the surprisal of each id of each, in nats: ``-log p`` under a model."""

PACKAGES = {"rake": "rake-nltk", "yake": "yake", "tfidf": "scikit-learn"}
WORD = re.compile(r"\w+(?:['’-]\w+)*")


def load_extractor(name: str, surprisals: Surprisals | None = None) -> Extractor:
    """Return the extractor that a recipe names.

    A function of a user's own gets a list of texts and returns, for each, phrases of it or pairs of characters
    ``(start, end)``, the most telling first.

    Args:
        name: ``rake``, ``yake``, ``tfidf``, ``surprisal``, or ``FILE.py:FUNCTION``.
        surprisals: how surprising a model finds answers; only for ``surprisal``.

    Raises:
        ValueError: if there is none, its package is not installed, or ``surprisal`` has no model.
    """
    if name == "surprisal":
        if surprisals is None:
            raise ValueError("extractor 'surprisal' needs a model that finds words surprising; name one")
        return lambda answers: list(map(_surprising, answers, surprisals(answers)))
    if name in PACKAGES:
        try:
            return {"rake": _rake, "yake": _yake, "tfidf": _tfidf}[name]()
        except ModuleNotFoundError as error:
            raise ValueError(
                f"extractor {name!r} needs a package; install it with: pip install {PACKAGES[name]} scikit-learn"
            ) from error
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ValueError(f"no extractor {name!r}; known: {', '.join([*PACKAGES, 'surprisal'])}, or FILE.py:FUNCTION")
    own = getattr(load_python_file(file), function, None)
    if not callable(own):
        raise ValueError(f"{file} defines no function {function!r} to extract key content with")
    return _of_user(own, name)


def identity_of(name: str) -> str:
    """Return what tells an extractor from others that have its name: versions of packages, or content of a file."""
    if name in PACKAGES:  # scikit-learn brings the stop words of rake too
        packages = dict.fromkeys([PACKAGES[name], *(["scikit-learn"] if name == "rake" else [])])
        return " ".join([name, *(importlib.metadata.version(package) for package in packages)])
    file, colon, _ = name.rpartition(":")
    return f"{name} {hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()}" if colon else name


def stretches_of(text: str, phrases: Iterable[str]) -> list[Stretch]:
    """Return where phrases stand in a text, in their order; what overlaps an earlier one is left out.

    Examples:
        >>> stretches_of("Warm rain. A warm day, warm rain.", ["warm rain", "day", "warm"])
        [(0, 9), (23, 32), (18, 21), (13, 17)]
    """
    taken: list[Stretch] = []
    for phrase in phrases:
        words = WORD.findall(phrase)
        if not words:
            continue
        between = r"\W+"
        pattern = rf"(?<!\w){between.join(map(re.escape, words))}(?!\w)"
        found = (match.span() for match in re.finditer(pattern, text, re.IGNORECASE))
        taken += [span for span in found if not any(span[0] < end and start < span[1] for start, end in taken)]
    return taken


def _rake() -> Extractor:
    from rake_nltk import Rake

    known = _stop_words()

    def of_text(text: str) -> list[Stretch]:
        rake = Rake(
            stopwords=known,
            sentence_tokenizer=lambda whole: re.split(r"[.!?;:\n]+", whole),
            word_tokenizer=lambda sentence: re.findall(rf"{WORD.pattern}|[^\w\s]", sentence),
            include_repeated_phrases=False,
        )
        rake.extract_keywords_from_text(text)
        ranked = sorted(rake.get_ranked_phrases_with_scores(), key=lambda each: (-each[0], each[1]))
        return stretches_of(text, (phrase for _, phrase in ranked))

    return lambda answers: [of_text(answer.text) for answer in _shown(answers)]


def _yake() -> Extractor:
    from yake import KeywordExtractor

    def of_text(text: str) -> list[Stretch]:
        ranked = KeywordExtractor(lan="en", n=3, top=max(20, len(text) // 10)).extract_keywords(text)
        return stretches_of(text, (phrase for phrase, _ in ranked))

    return lambda answers: [of_text(answer.text) if answer.text.strip() else [] for answer in _shown(answers)]


def _shown(answers: Sequence[Answer]) -> Iterable[Answer]:
    return tqdm(answers, desc="key content", unit=" rows", leave=False, delay=1.0)


def _tfidf() -> Extractor:
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = _stop_words()

    def of_all(answers: Sequence[Answer]) -> list[list[Stretch]]:
        words = [
            [word for word in map(str.lower, WORD.findall(answer.text)) if word not in known] for answer in answers
        ]
        if not any(words):
            return [[] for _ in answers]
        table = TfidfVectorizer(analyzer=lambda given: given)
        weights = table.fit_transform(words)
        names = table.get_feature_names_out()
        ranked = []
        for answer, row in zip(answers, weights, strict=True):
            order = sorted(zip(row.data, row.indices, strict=True), key=lambda each: (-each[0], names[each[1]]))
            ranked.append(stretches_of(answer.text, (names[index] for _, index in order)))
        return ranked

    return of_all


def _surprising(answer: Answer, surprisals: Sequence[float]) -> list[Stretch]:
    """Return the words that are more surprising than a word of the answer is on average, most surprising first."""
    words = [match.span() for match in WORD.finditer(answer.text)]
    sums = dict.fromkeys(words, 0.0)
    for (start, end), nats in zip(answer.places, surprisals, strict=True):
        word = next((each for each in words if start < each[1] and each[0] < end), None)
        if word is not None:
            sums[word] += nats
    usual = sum(sums.values()) / max(len(sums), 1)
    return sorted((word for word in words if sums[word] > usual), key=lambda word: (-sums[word], word))


def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def _of_user(function: Callable[[list[str]], Any], name: str) -> Extractor:
    def of_all(answers: Sequence[Answer]) -> list[list[Stretch]]:
        texts = [answer.text for answer in answers]
        try:
            found = [list(each) for each in function(texts)]
        except Exception as error:
            raise DataError(f"extractor {name} failed: {type(error).__name__}: {error}") from error
        if len(found) != len(texts):
            raise DataError(f"extractor {name} returned {len(found)} rankings for {len(texts)} texts")
        return [list(_checked(text, ranking, name)) for text, ranking in zip(texts, found, strict=True)]

    return of_all


def _checked(text: str, ranking: Sequence[Any], name: str) -> Iterator[Stretch]:
    taken: list[Stretch] = []
    for each in ranking:
        spans = stretches_of(text, [each]) if isinstance(each, str) else [_span(each, text, name)]
        for span in spans:
            if not any(span[0] < end and start < span[1] for start, end in taken):
                taken.append(span)
                yield span


def _span(found: Any, text: str, name: str) -> Stretch:
    """Return a stretch that a user's function gave.

    Raises:
        DataError: if it is none of the text.
    """
    both = tuple(found) if isinstance(found, (tuple, list)) else ()
    whole = len(both) == 2 and all(isinstance(place, Integral) for place in both)
    if not whole or not 0 <= both[0] < both[1] <= len(text):
        raise DataError(
            f"extractor {name} returned {found!r}, which is no phrase and no pair (start, end) of characters of "
            f"{text!r}"
        )
    return int(both[0]), int(both[1])


def removed(stretches: Sequence[Stretch], share: float) -> list[Stretch]:
    """Return the most telling share of stretches, rounded up."""
    return list(stretches[: math.ceil(share * len(stretches) - 1e-9)])
