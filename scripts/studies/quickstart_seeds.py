"""The quickstart under its own seed and three others: sampling, pairs, adapters and order of data all change.

``python scripts/studies/quickstart_seeds.py`` runs what is missing, one result file a run in
``docs/results/quickstart/``, and prints the table.
"""

import argparse
import json
import statistics
from pathlib import Path

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe

RECIPE = Path("recipes/quickstart.yaml")
RESULTS = Path("docs/results/quickstart")
OTHERS = (1, 2, 3)
KEPT = ("held_out", "start_margin", "steps", "seconds", "peak_memory_gib", "precision", "versions", "recipe_digest")
"""What is kept of a run's summary beside its comparison of samples."""


def main() -> None:
    """Run the missing seeds and print what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    results = {seed: result(seed) for seed in (*OTHERS, 0)}
    differences = [results[seed]["reward"]["difference"] for seed in OTHERS]
    median = sorted(differences, key=lambda interval: interval["value"])[len(differences) // 2]
    if arguments.json:
        print(json.dumps({"seeds": results, "median_of_others": median}))
        return
    for seed, found in results.items():
        print(row(seed, found))
    print(f"median of seeds {OTHERS}: {shown(median)}")
    print(f"mean KL: {statistics.mean(r['kl']['value'] for r in results.values()):.2f} nats a completion")


def result(seed: int) -> dict:
    """Return a seed's result, from its file where there is one."""
    file = RESULTS / f"seed-{seed}.json"
    if not file.is_file():
        summary = run_recipe(load_recipe(RECIPE, overrides(seed)))
        generation = {k: v for k, v in summary["generation"].items() if k != "scores"}
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**generation, **{k: summary[k] for k in KEPT}}, indent=2) + "\n")
    return json.loads(file.read_text())


def overrides(seed: int) -> list[str]:
    """Return what a seed changes; 0 is the recipe as it is."""
    if seed == 0:
        return ["output.dir=runs/quickstart"]  # the run of `make quickstart`, where there is one
    folder = f"output.dir=runs/studies/quickstart-seed-{seed}"
    return [folder, f"trainer.seed={seed}", f"data.train.synth.seed={seed}"]


def row(seed: int, found: dict) -> str:
    """Return a seed's figures as a line."""
    accuracy = {name: found["held_out"][f"eval_accuracy{name}"] for name in ("", "_low", "_high")}
    return (
        f"seed {seed}: reward {found['reward']['base']['value']:.3f} -> {found['reward']['aligned']['value']:.3f}, "
        f"difference {shown(found['reward']['difference'])}, win rate {shown(found['win_rate'])}, "
        f"KL {found['kl']['value']:.2f}, held-out accuracy {accuracy['']:.3f} "
        f"[{accuracy['_low']:.3f}, {accuracy['_high']:.3f}], {found['seconds']:.0f} s"
    )


def shown(interval: dict) -> str:
    """Return an interval as text."""
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


if __name__ == "__main__":
    main()
