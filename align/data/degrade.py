"""Versions of responses that say less and less: key content removed, the most telling first.

What self-supervised preference optimisation (Li et al., 2024, arXiv:2409.17791) calls preference degrees. Version 0 is
the response itself; version k lacks the k-th share of its ranked key content. Removal is of whole tokens, so that
nothing else of a version is tokenised otherwise than in the response.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from filelock import FileLock
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.cache import cache_root, content_of, key_of, tokenizer_state
from align.data.key_content import Answer, Stretch, Surprisals, identity_of, load_extractor, removed
from align.objectives.base import SIDES
from align.recipe.spo import DegreeSettings

VERSION = 4
"""Raised whenever the code makes other versions of the same response."""
PARTIAL = "\ufffd"
"""What bytes that are no whole character decode to."""


def column_of(side: str) -> str:
    """Return the column that holds the versions of a side."""
    return f"{side}_versions"


@dataclass(frozen=True, slots=True)
class Degraded:
    """A data set with the versions of its responses.

    Attributes:
        dataset: prepared pairs, and for each degraded side a column of the ids of versions 1, 2, ...; a version that
            equals the next one, because there is too little key content, is an empty list.
        missing: share of versions that are so empty.
    """

    dataset: datasets.Dataset
    missing: float


def degraded(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    settings: DegreeSettings,
    *,
    parts: Sequence[str] | None = None,
    surprisals: Surprisals | None = None,
    model: str = "",
    name: str = "train_dataset",
) -> Degraded:
    """Return prepared rows with the versions of their responses, made once and found again under a key of content.

    Args:
        rows: prepared pairs, or single completions.
        tokenizer: of their ids.
        settings: how versions are made.
        parts: ``completion`` for single ones; None for the sides that ``settings`` names.
        surprisals: how surprising a model finds answers; only for that extractor.
        model: what tells that model from others.
        name: what the data set is called while versions are made.

    Raises:
        ValueError: as :func:`~align.data.key_content.load_extractor`; or if the mask is no single token.
    """
    extractor = load_extractor(settings.extractor, surprisals)
    mask = mask_id(tokenizer, settings) if settings.removal == "mask" else None
    made_of = settings.degraded_sides if parts is None else tuple(parts)
    key = {
        "degrade": VERSION,
        "rows": content_of(rows),
        "extractor": identity_of(settings.extractor),
        "model": model if settings.extractor == "surprisal" else "",
        "removed": settings.removed,
        "removal": settings.removal,
        "mask": mask,
        "sides": made_of,
        "tokenizer": tokenizer_state(tokenizer),
    }
    file = cache_root() / "degraded" / f"{key_of(key)}.arrow"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # another process that wants the same waits, then reads them
        if not file.is_file():
            whole = _with_versions(rows, tokenizer, settings, extractor, mask, made_of, name)
            whole.map(lambda batch: batch, batched=True, cache_file_name=str(file), features=whole.features)
    made = datasets.Dataset.from_file(str(file))
    columns = (made.data.column(column_of(part)) for part in made_of)  # not as lists: they may be large
    lengths = [pc.list_value_length(pc.list_flatten(column)).to_numpy() for column in columns]
    return Degraded(made, float((np.concatenate(lengths) == 0).mean()))


def _with_versions(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    settings: DegreeSettings,
    extractor: Any,
    mask: int | None,
    parts: Sequence[str],
    name: str,
) -> datasets.Dataset:
    kind = datasets.List(datasets.List(datasets.Value("int32")))
    rows = rows.flatten_indices()
    for part in parts:
        pairs = zip(rows["prompt_ids"], rows[f"{part}_ids"], strict=True)
        bar = tqdm(pairs, total=len(rows), desc=f"texts of {name}, {part}", unit=" rows", leave=False)
        answers = [answer_of(tokenizer, prompt, ids) for prompt, ids in bar]
        ranked = extractor(answers)
        made = [versions(answer, key, settings, mask) for answer, key in zip(answers, ranked, strict=True)]
        rows = rows.add_column(column_of(part), made, feature=kind)
    return rows


def brought(rows: datasets.Dataset, parts: Sequence[str], settings: DegreeSettings, name: str) -> bool:
    """Return whether a data set brings versions of its own.

    Raises:
        ValueError: if it brings them of other parts, or not as many as ``settings`` has degrees, naming the first row.
    """
    asked = [column_of(part) for part in parts]
    there = [column for column in map(column_of, (*SIDES, "completion")) if column in rows.column_names]
    if there and there != asked:
        raise ValueError(
            f"{name}: rows bring {' and '.join(map(repr, there))}, and spo.versions.sides={settings.sides!r} asks for "
            f"{' and '.join(map(repr, asked))}: set sides to what is there, bring all that is asked for, or none"
        )
    for part in parts if there else ():
        for number, lists in enumerate(rows[column_of(part)]):
            if len(lists) != settings.degrees - 1:
                raise ValueError(
                    f"{name}, row {number}: column {column_of(part)!r} has {len(lists)} versions, and spo.versions."
                    f"degrees={settings.degrees} asks for {settings.degrees - 1} beside the whole response; set "
                    f"degrees to {len(lists) + 1}, or leave the column out"
                )
    return bool(there)


def versions(
    answer: Answer, key_content: Sequence[Stretch], settings: DegreeSettings, mask: int | None = None
) -> list[list[int]]:
    """Return the ids of versions 1, 2, ... of an answer.

    One that equals the next is empty, so that what lacks all key content is of the last degree however little there is;
    and so is one that equals the answer itself, or of which nothing is left.
    """
    whole = list(answer.ids)
    found = [_without(answer, removed(key_content, share), mask) for share in settings.removed[1:]]
    kept = [ids != following and ids != whole for ids, following in zip(found, [*found[1:], None], strict=True)]
    stands = [whole if settings.removal == "nothing" and ids else ids for ids in found]
    return [ids if there else [] for ids, there in zip(stands, kept, strict=True)]


def answer_of(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int]) -> Answer:
    """Return a completion as text, and which characters each of its ids stands for.

    Tokens that are part of one character all stand for it.
    """
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = {*tokenizer.all_special_ids, *added}
    plain = [token for token in ids if token not in special]
    text, places, first, pending = "", list[Stretch](), 0, 0
    for last in range(1, len(plain) + 1):
        pending += 1
        before, now = (_text(tokenizer, plain[first : last - number]) for number in (pending, 0))
        if now.endswith(PARTIAL) and last < len(plain):
            continue  # the first bytes of a character
        places += [(len(text), len(text) + len(now) - len(before))] * pending
        text += now[len(before) :]
        first, pending = last - pending, 0
    where = iter(places)
    return Answer(
        text=text,
        ids=list(ids),
        prompt_ids=list(prompt_ids),
        places=[(0, 0) if token in special else next(where) for token in ids],
    )


def mask_id(tokenizer: PreTrainedTokenizerBase, settings: DegreeSettings) -> int:
    """Return the id that stands in place of removed tokens.

    Raises:
        ValueError: if the mask is no single token.
    """
    if settings.mask_token is None and tokenizer.mask_token_id is not None:
        return int(str(tokenizer.mask_token_id))
    text = " _" if settings.mask_token is None else settings.mask_token
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise ValueError(f"spo.versions.mask_token {text!r} is {len(ids)} tokens here; give a text that is one")
    return int(ids[0])


def marked(answer: Answer, key_content: Sequence[Stretch], settings: DegreeSettings) -> Iterator[Mapping[str, Any]]:
    """Yield each version of an answer as stretches of text, each with whether it is removed."""
    for degree, share in enumerate(settings.removed):
        gone = removed(key_content, share)
        pieces: list[tuple[str, bool]] = []
        for place in dict.fromkeys(answer.places):
            text, out = answer.text[slice(*place)], _touches(place, gone)
            if pieces and pieces[-1][1] == out:
                pieces[-1] = (pieces[-1][0] + text, out)
            elif text:
                pieces.append((text, out))
        lacks = len(gone) / len(key_content) if key_content else 0.0
        yield {"degree": degree, "share": share, "lacks": lacks, "pieces": pieces}


def _without(answer: Answer, gone: Sequence[Stretch], mask: int | None) -> list[int]:
    out = [_touches(place, gone) for place in answer.places]
    if mask is None:
        return [token for token, leave in zip(answer.ids, out, strict=True) if not leave]
    return [mask if leave else token for token, leave in zip(answer.ids, out, strict=True)]


def _touches(place: Stretch, stretches: Sequence[Stretch]) -> bool:
    return place[0] < place[1] and any(place[0] < end and start < place[1] for start, end in stretches)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) if ids else ""
