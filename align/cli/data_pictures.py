"""``align data preview`` of pictures: a sheet of them, and what is in the set.

FILE is the recipe of a method, the name of a set of pictures that comes with align, or a folder of one's own pictures.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def is_pictures(name: str) -> bool:
    """Whether a name is of pictures: a method's recipe, a set that comes with align, or a folder of pictures."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        from align.cli.method import is_method

        return is_method(name)
    if path.is_dir():
        return any(file.suffix.lower() in _SUFFIXES for file in path.rglob("*")) or _saved_with_pictures(path)
    if path.exists() or path.suffix:
        return False
    from align.wings.sources import names

    return name in names()


_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def _saved_with_pictures(folder: Path) -> bool:
    """Whether ``datasets`` saved the folder, and it is of pictures, not of preferences that have some beside them."""
    for file in folder.rglob("dataset_info.json"):
        columns = json.loads(file.read_text(encoding="utf-8")).get("features") or {}
        kinds = {one.get("_type") for one in columns.values() if isinstance(one, dict)}
        if "Image" in kinds and not {"chosen", "rejected", "completion"} & set(columns):
            return True
    return False


def preview_pictures(arguments: argparse.Namespace) -> int:
    """Draw a sheet of pictures spread over the set, and print what the set holds.

    Raises:
        ValueError: the recipe or the pictures cannot be read, or a file is in the way.
    """
    from align.report.look import MADE_BY, save
    from align.report.overwriting import refuse_to_overwrite
    from align.wings.drawing import contact_sheet
    from align.wings.sources import load_data

    name, settings = _source(arguments.file)
    data = load_data(name, settings)
    rows = 8 * max(1, arguments.rows)
    shown = data.train.take(list(range(0, len(data.train), max(1, len(data.train) // rows)))[:rows])
    target = Path(arguments.picture or f"{Path(arguments.file).stem}.png")
    refuse_to_overwrite(target, MADE_BY)
    titles = list(shown.captions) or [shown.classes[label] for label in shown.labels.tolist()]
    save(contact_sheet(shown.images, titles, caption=f"{name}: {len(data.train)} to train on"), [target])
    found = _described(name, data)
    if arguments.json:
        print(json.dumps({**found, "picture": str(target)}, indent=2))
        return 0
    for key, value in found.items():
        print(f"{key + ':':12} {value}")
    print(f"{'picture:':12} {target}")
    return 0


def _source(name: str) -> tuple[str, Any]:
    from align.recipe.errors import Origin
    from align.recipe.yaml_tree import Node
    from align.wings.recipe import load_method_recipe
    from align.wings.sources import build_data

    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        recipe = load_method_recipe(path)
        return recipe.data, recipe.data_settings
    key = "path" if path.is_dir() else "name"
    return build_data(Node({key: Node(name, Origin())}, Origin()))


def _described(name: str, data: Any) -> dict[str, Any]:
    channels, height, width = data.train.images.shape[1:]
    classes = data.train.classes
    listed = ", ".join(classes[:20]) + (f", ... ({len(classes)})" if len(classes) > 20 else "")
    return {
        "data": name,
        "train": len(data.train),
        "held out": len(data.test),
        "pictures": f"{height} x {width}, {channels} channel{'s' if channels > 1 else ''}",
        "classes": listed,
    }
