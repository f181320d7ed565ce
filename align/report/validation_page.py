"""What ``align validate`` prints: facts of a recipe as aligned columns, and sentences where a number needs meaning."""

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from align.report.scaling_page import on_gpus, title_of

Facts = Mapping[str, Any]
Row = tuple[str, str]

LABEL = 18
WIDTH = 112
SPLITS = {"train": "training", "held_out": "held out"}
PARTS = ("prompt", "chosen", "rejected", "desirable", "undesirable", "whole")
POINTS = ("min", "mean", "median", "p95", "max")


def page(facts: Facts) -> str:
    """Return all sections of :func:`align.trainers.validation.validate` as text for a terminal."""
    sections = (
        ("model", _model(facts)),
        ("reference", _reference(facts)),
        ("data", _data(facts)),
        ("lengths (tokens)", _lengths(facts)),
        ("duplicates", _duplicates(facts)),
        ("steps", _steps(facts)),
        *(((title_of(facts["gpus"]), on_gpus(facts)),) if "gpus" in facts else _here(facts)),
        ("output", _output(facts)),
    )
    text = "\n\n".join("\n".join([title, *_aligned(rows)]) for title, rows in sections)
    warnings = facts["warnings"]
    if warnings:
        told = [line for warning in warnings for line in _bullet(warning)]
        text += "\n\n" + "\n".join([f"warnings ({len(warnings)})", *told])
    verdict = "the recipe is valid" + (f", with {_count(len(warnings), 'warning')}" if warnings else "")
    return f"{text}\n\n{facts['recipe']}: {verdict}"


def _here(facts: Facts) -> tuple[tuple[str, Iterator[Row]], ...]:
    """Return what a run costs on this machine."""
    return ("memory", _memory(facts)), ("time", _time(facts))


def size(count: float) -> str:
    """Return bytes as people read them.

    Examples:
        >>> size(3 * 2**30), size(5.5 * 2**20), size(900)
        ('3.00 GiB', '5.5 MiB', '1 KiB')
    """
    if count >= 2**30 / 10:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 / 10 else f"{count / 2**10:.0f} KiB"


def many(count: float) -> str:
    """Return a count in millions or billions where it has that many.

    Examples:
        >>> many(134515008), many(7.2e9), many(812)
        ('134.5 M', '7.20 B', '812')
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f} B"
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,.0f}"


def _model(facts: Facts) -> Iterator[Row]:
    model = facts["model"]
    yield "path", f"{model['path']} ({model['kind']})"
    share = 100 * model["trainable"] / model["parameters"]
    how = f"LoRA, rank {model['lora']['r']}" if model["lora"] else "every weight"
    yield "parameters", f"{many(model['parameters'])}; trained: {many(model['trainable'])} ({share:.1f} %, {how})"
    yield "weights", f"{size(model['weight_bytes'])}; {model['precision']}"
    yield "limits", f"{model['positions'] or 'unlimited'} positions, vocabulary of {model['vocabulary']:,}"
    yield "objective", model["objective"]
    for note in model["notes"]:
        yield "note", note


def _reference(facts: Facts) -> Iterator[Row]:
    reference = facts["reference"]
    copied = f"; {size(reference['copy_bytes'])}" if reference["copy_bytes"] else ""
    yield reference["kind"], reference["says"] + copied


def _data(facts: Facts) -> Iterator[Row]:
    data = facts["data"]
    noun = data["noun"]
    for split, report in data["rows"].items():
        limit = "no limit" if report["max_length"] is None else f"{report['max_length']:,} tokens"
        kept = f"{report['rows']:,} read, {_kept(report, noun)}; "
        cut = f"{100 * report['truncated_share']:.1f} % truncated ({report['truncation']}, {limit})"
        yield f"{SPLITS[split]} rows", f"{kept}{cut}; {report['dropped']:,} dropped"
        if skipped := report.get("skipped"):
            yield "", f"{sum(skipped.values()):,} bad rows skipped"
        if report["silent"]:
            yield "", f"{report['silent']:,} with a completion that says nothing"
    sizes = {split: f"{count:,}" for split, count in data["sizes"].items()}
    sizes |= {split: f"{sizes[split]} ({count:,} of them desirable)" for split, count in data["desirable"].items()}
    held = f"{sizes['held_out']} held out by {data['held_out_by']}" if "held_out" in sizes else "none held out"
    yield f"{noun}s", f"{sizes['train']} to train on, {held}"
    if data["upper_bound"]:
        yield "", "the model has yet to make its pairs: at most so many, with completions at most so long"


def _kept(report: Mapping[str, Any], noun: str) -> str:
    if noun == "pair":
        return f"{report['pairs']:,} pairs"
    good, bad = report["desirable"], report["undesirable"]
    return f"{good + bad:,} completions ({good:,} desirable, {bad:,} undesirable)"


def _lengths(facts: Facts) -> Iterator[Row]:
    yield "", "".join(f"{point:>9}" for point in POINTS)
    for split, lengths in facts["lengths"].items():
        for part, spread in ((part, lengths.get(part)) for part in PARTS):
            if spread is not None:
                yield f"{SPLITS[split]} {part}", "".join(f"{spread[point]:9,.0f}" for point in POINTS)
        if "chosen_longer" in lengths and not facts["data"]["upper_bound"]:
            longer, same = 100 * lengths["chosen_longer"], 100 * lengths["same_length"]
            yield "", f"chosen is longer in {longer:.1f} % of pairs, as long in {same:.1f} %"
    batches = facts["batches"]
    yield "padding", f"{100 * batches['padding']:.1f} % of positions, in batches as the recipe makes them"


def _duplicates(facts: Facts) -> Iterator[Row]:
    found, noun = facts["duplicates"], facts["data"]["noun"]
    how = "the sides swapped" if noun == "pair" else "the other label"
    for split, title in SPLITS.items():
        if split in found:
            here = found[split]
            counted = f"{here['prompts']:,} {noun}s repeat a prompt, {here['rows']:,} repeat a whole row"
            swapped = f"{here['contradicted']:,} are there with {how} too"
            named = f" ({', '.join(here['places'])})" if here["places"] else ""
            yield title, f"{counted}, {swapped}{named}"
    if "across" in found:
        leak = found["across"]
        named = f" ({', '.join(leak['places'])})" if leak["places"] else ""
        counted = f"{leak['prompts']:,} held-out {noun}s ({100 * leak['share']:.1f} %) have a prompt that is trained on"
        yield "across", f"{counted}, {leak['rows']:,} a whole row{named}"
    if not found:
        yield "", "not known before the pairs are made"


def _steps(facts: Facts) -> Iterator[Row]:
    steps, noun = facts["steps"], facts["data"]["noun"]
    most = "at most " if steps["upper_bound"] else ""
    yield "steps", f"{most}{steps['steps']:,} of {_count(steps['batch'], noun)}; {steps['warmup']:,} of them warm-up"
    yield (
        "epochs",
        f"{steps['epochs']:.2f} of {_count(steps['rows'], noun)}, {_count(steps['batches'], 'batch')} each",
    )
    tokens = f"{many(steps['tokens'])} tokens, {many(steps['positions'])} positions with padding"
    if noun == "pair" and len(steps["sides"]) == 1:
        tokens += f"; the objective reads the {steps['sides'][0]} alone, evaluations compute both sides"
    yield "passed through", tokens
    if steps.get("versions"):
        yield "versions", f"up to {steps['versions']} rows a {noun} beside these, which the policy alone computes (spo)"
    if speed := facts.get("speed"):
        positions = f"about {speed['computed']:,} positions a batch instead of {speed['padded']:,}"
        yield "speed", f"{positions}, {speed['saved']:.0%} less, where rows can be shared and packed"
    if steps["mismatched"]:
        yield "", "and as many rows again without gradient: each prompt with another row's completion"
    if steps["evaluations"]:
        each = _count(steps["eval_batches"], "batch")
        yield "evaluations", f"{steps['evaluations']}, each of {each}"
    if steps["processes"] > 1:
        yield "processes", f"{steps['processes']}, which share the {noun}s"


def _memory(facts: Facts) -> Iterator[Row]:
    memory = facts["memory"]
    for name, parts in memory["stages"].items():
        total = size(sum(parts.values()))
        largest = sorted(((amount, what) for what, amount in parts.items() if amount), reverse=True)
        told = ", ".join(f"{what} {size(amount)}" for amount, what in largest)
        yield name, f"{total:>10}  {told}"
    times = f"{memory['processes']} processes x {size(memory['peak_bytes'])} = " if memory["processes"] > 1 else ""
    share = 100 * memory["total_bytes"] / max(memory["available_bytes"], 1)
    available = f"{size(memory['available_bytes'])} of {memory['kind']} available ({memory['available_by']})"
    yield "worst", f"{times}{size(memory['total_bytes'])}, in {memory['peak_stage']}; {available}"
    yield "verdict", f"{memory['verdict']}: {share:.0f} % of it"


def _time(facts: Facts) -> Iterator[Row]:
    time = facts["time"]
    for name, label in (
        ("making_pairs", "making pairs"),
        ("drawing", "drawing samples"),
        ("training", "training"),
        ("evaluation", "evaluation"),
        ("generation", "before and after"),
    ):
        if time[name]:
            yield label, _seconds(time[name])
    where = f"{time['threads']} threads" if time["threads"] else time["device"]
    speed = f"{time['speed_flops'] / 1e9:,.0f} GFLOP/s in {time['dtype']}, {time['speed_traffic'] / 1e9:,.0f} GB/s"
    yield "measured", f"{speed}, {where}; a step is {time['step_flops'] / 1e12:.2g} TFLOP"
    if time["load"] is not None:
        yield "", f"while the load average was {time['load']:.1f} on {_count(time['cores'], 'core')}"
    divided = (
        f", {facts['data']['noun']}s divided among processes that are each as fast"
        if facts["steps"]["processes"] > 1
        else ""
    )
    most = "; fewer pairs take less" if facts["data"]["upper_bound"] and time["making_pairs"] else ""
    yield "in all", f"about {time['says']} at this speed{divided}, without loading{most}"


def _output(facts: Facts) -> Iterator[Row]:
    output = facts["output"]
    yield "folder", f"{output['folder']} ({output['state']})"
    if output["checkpoints"]:
        kept = f"{_count(output['checkpoints'], 'checkpoint')} of {size(output['checkpoint_bytes'])}"
        yield "checkpoints", f"{kept}, {output['kept']} of them there at once"
    free = "" if output["disk_free"] is None else f", {size(output['disk_free'])} free"
    yield "disk", f"{size(output['disk_needed'])} needed{free}"


def _aligned(rows: Iterator[Row]) -> list[str]:
    lines = []
    for label, text in rows:
        room = max(LABEL, len(label))
        spaces = len(text) - len(text.lstrip()) if len(label) > LABEL else 0
        text = text[min(spaces, len(label) - LABEL) :] if spaces else text  # numbers stay below one another
        first, *rest = [text] if text.startswith(" ") else wrap(text, WIDTH - LABEL) or [""]
        lines += [f"  {label:{room}}  {first}".rstrip(), *(f"  {'':{LABEL}}  {line}" for line in rest)]
    return lines


def _bullet(text: str) -> list[str]:
    first, *rest = wrap(text, WIDTH - 4)
    return [f"  - {first}", *(f"    {line}" for line in rest)]


def _count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples:
        >>> _count(1, "batch"), _count(2400, "batch"), _count(2, "pair")
        ('1 batch', '2,400 batches', '2 pairs')
    """
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under a second"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
