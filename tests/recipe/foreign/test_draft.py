import yaml

from align.recipe.foreign.draft import Draft


def draft():
    made = Draft()
    made.set("model.path", "m", "base_model")
    made.set("model.lora.r", 8, "lora_r")
    made.set("model.dtype", "auto", "")
    made.set("model.lora.lora_alpha", 16, "lora_alpha")
    made.set("data.train", [{"path": "a", "weight": 0.5}], "datasets")
    made.set("trainer.save_strategy", "no", "save_strategy", "a note")
    made.decide("load_in_4bit", 7, "True: not here")
    made.leave("x", "why")
    made.leave("y", "why")
    return made


def test_what_is_rendered_reads_back():
    assert yaml.safe_load(draft().render(["head"])) == {
        "model": {"path": "m", "lora": {"r": 8, "lora_alpha": 16}, "dtype": "auto"},
        "data": {"train": [{"path": "a", "weight": 0.5}]},
        "trainer": {"save_strategy": "no"},
    }


def test_comments_say_where_values_come_from():
    lines = draft().render(["head"]).splitlines()
    assert lines[:2] == ["# head", "# DECIDE: load_in_4bit (line 7): True: not here"]
    assert "  path: m  # base_model" in lines
    assert lines[lines.index("  save_strategy: 'no'") - 1] == "  # a note"
    assert lines[-1] == "#   x, y: why"


def test_a_long_note_is_wrapped_as_comments():
    made = Draft()
    made.set("model.path", "m", "")
    made.decide("k", None, "word " * 60)
    text = made.render([])
    assert max(map(len, text.splitlines())) <= 120
    assert yaml.safe_load(text) == {"model": {"path": "m"}}


def test_the_setting_of_an_error_is_dropped():
    made = draft()
    assert made.drop("model.lora.r").value == 8
    assert made.drop("data.train.0.path").source == "datasets"
    assert made.drop("evaluation.x") is None
    assert "model.lora.r" not in made.settings


def test_a_data_file_has_no_split():
    draft = Draft()
    draft.set("data.train", [{"path": "a.jsonl.gz", "split": "train"}, {"path": "org/set", "split": "train"}], "x")
    assert draft.settings["data.train"].value == [{"path": "a.jsonl.gz"}, {"path": "org/set", "split": "train"}]


def test_numbered_settings_are_items_of_a_list():
    draft = Draft()
    draft.set("objective.0.name", "dpo", "loss_type", "a note")
    draft.set("objective.0.beta", 0.1, "beta")
    draft.set("objective.1.name", "sft", "loss_type")
    assert draft.render(["head"]).splitlines()[2:] == [
        "objective:",
        "  # a note",
        "  - name: dpo  # loss_type",
        "    beta: 0.1",
        "  - name: sft  # loss_type",
    ]
    assert draft.drop("objective.0.beta").value == 0.1
    assert list(draft.settings) == ["objective.0.name", "objective.1.name"]
