"""The shipped recipes: headers that say all, figures that were measured, smoke twins that are like them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from buttress.cli import main, recipe_words, settings
from buttress.commands.compress import compress
from buttress.commands.reinforce import reinforce
from buttress.commands.train import train
from buttress.errors import SettingsError
from buttress.recipes.shipped import read_header, recipe_path, shipped_names, shipped_path
from buttress.signature import arguments_of
from buttress.training.replay import as_recipe

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "recipes.jsonl"
NAMES = shipped_names()
VERBS: dict[str, Callable[..., object]] = {"compress": compress, "reinforce": reinforce, "train": train}


def test_there_are_recipes_and_each_has_its_twin():
    assert {"digits-hard", "digits-teacher"} <= set(NAMES)
    files = {path.name for path in shipped_path(NAMES[0]).parent.glob("*.yaml")}
    assert files == {f"{name}{end}" for name in NAMES for end in (".yaml", ".smoke.yaml")}


def words_of(name: str) -> list[tuple[str, str]]:
    """Flag and value of everything that a recipe says."""
    words = recipe_words(shipped_path(name), arguments_of(VERBS[verb_of(name)]))
    if "--" in words:
        nouns = words[words.index("--") + 1 :]
        words = [*words[: words.index("--")], *(f"--run={noun}" for noun in nouns)]
    parts = (word.removeprefix("--").partition("=") for word in words)
    return [(flag.replace("-", "_"), value) for flag, _, value in parts]


def verb_of(name: str) -> str:
    """The command that a recipe is of."""
    words = read_header(shipped_path(name)).command.split()
    return words[words.index("buttress") + 1]


@pytest.mark.parametrize("name", [each + end for each in NAMES for end in ("", ".smoke")])
def test_a_header_says_all_and_names_its_own_command(name):
    header = read_header(shipped_path(name))
    verb = verb_of(name)
    launcher, _, given = header.command.partition(f"buttress {verb} ")
    assert launcher == "" or launcher.startswith("torchrun ")
    assert given.startswith(f"--recipe {name} ")
    assert settings(VERBS[verb], shlex.split(given)) is not None
    assert header.minutes is None or header.minutes > 0
    for line in header.before:
        program, other, *words = shlex.split(line)
        assert program == "buttress"
        assert settings(VERBS[other], words) is not None


@pytest.mark.parametrize("name", [each + end for each in NAMES for end in ("", ".smoke")])
def test_R29_a_recipe_that_is_dumped_parses_back_equal(name, tmp_path):
    function = VERBS[verb_of(name)]
    given = settings(function, ["--recipe", name, "--out", "run"])
    assert given is not None
    (tmp_path / "dumped.yaml").write_text(yaml.safe_dump(as_recipe(given)))
    assert settings(function, ["--recipe", str(tmp_path / "dumped.yaml"), "--out", "run"]) == given


@pytest.mark.parametrize("name", [each for each in NAMES if each.startswith("imagenet-")])
def test_what_was_not_run_says_so(name):
    assert words_of(name) == words_of("imagenet-reinforced")  # on many nodes the launcher differs alone
    header = read_header(shipped_path(name))
    assert header.expected == "not run here"
    assert header.minutes is None


@pytest.mark.parametrize("name", [each for each in NAMES if not each.startswith("imagenet-")])
def test_the_expected_metric_is_the_last_one_measured(name):
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["recipe"] == name)
    spread = "" if last["top1"]["sd"] is None else f" ± {100 * last['top1']['sd']:.1f}"  # one run has none
    top1 = f"{100 * last['top1']['mean']:.1f}{spread} %"
    header = read_header(shipped_path(name))
    assert top1 in header.expected
    assert header.minutes == pytest.approx(last["minutes"], rel=0.5)
    assert numbered(dict(words_of(name))) == numbered(last["flags"])


def numbered(flags: dict[str, str]) -> dict[str, str | float]:
    """Values that are numbers as numbers: 0.50 and 0.5 are the same."""
    return {key: float(text) if text.replace(".", "").isdigit() else text for key, text in flags.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_twin_trains_in_the_same_way(name):
    """It differs in length, and in data and size where those of the recipe are not at hand.

    `test_golden_losses` runs it: whatever is shared by two files may be made once for each.
    """
    whole, twin = (dict(words_of(each)) for each in (name, f"{name}.smoke"))
    free = {"epochs", "reinforcement", "run", "teacher"}
    if whole["data"] != "digits":
        free |= {"data", "val", "size", "teacher_size", "workers", "evaluate_every"}
        if "model" in whole:
            whole["model"] = whole["model"].split(".")[0]  # begins anew, not from the weights of a hub
    if name.startswith("imagenet-"):
        free |= {"model", "precision"}
    differing = {key for key in whole.keys() | twin.keys() if whole.get(key) != twin.get(key)}
    assert "epochs" in differing and differing <= free


def test_a_flag_overrides_a_shipped_recipe_and_a_file_goes_before_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits-hard").mkdir()  # a run folder of that name is no recipe
    assert recipe_path(Path("digits-hard")) == shipped_path("digits-hard")
    (tmp_path / "digits-teacher").write_text("model: timm:test_vit\n")
    assert recipe_path(Path("digits-teacher")) == Path("digits-teacher")
    assert main(["train", "--recipe", "digits-hard", "--epochs", "0", "--out", "x"]) == 2
    assert "epochs = 0" in capsys.readouterr().err


def test_recipes_are_listed_and_printed(capsys):
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    for name in NAMES:
        header = read_header(shipped_path(name))
        assert f"{name}: {header.title}" in text
        assert header.expected in text
    assert ".smoke" not in text
    assert main(["recipes", "digits-hard"]) == 0
    assert capsys.readouterr().out == shipped_path("digits-hard").read_text()


def test_an_unknown_recipe_is_refused_with_the_nearest(capsys):
    for words in (["recipes", "digit-hard"], ["train", "--recipe", "digit-hard"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "no recipe 'digit-hard' is shipped; did you mean digits-hard?" in error
        assert error.count("\n") == 1
    assert main(["train", "--recipe", "no/such.yaml"]) == 2
    assert "no/such.yaml: the recipe cannot be read (No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("# minutes: 1", "# minutes: soon"), "minutes: could not convert string to float: 'soon'"),
        (("# origin:", "# orgin:"), "the header line 'orgin"),
        (("# hardware: one", "# minutes: 1"), "once"),
        (("# expected:", "#   expected:"), "lacks expected"),
    ],
)
def test_a_header_that_lacks_something_is_refused(tmp_path, change, message):
    text = (
        "# A title.\n#\n# origin: here,\n#   and there\n# command: run it\n# minutes: 1\n# expected: much\n"
        "# hardware: one\nmodel: timm:test_vit\n# not of the header: x\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    header = read_header(tmp_path / "r.yaml")
    assert (header.title, header.origin, header.minutes, header.hardware) == ("A title.", "here, and there", 1, "one")
    assert change[0] in text
    (tmp_path / "r.yaml").write_text(text.replace(*change))
    with pytest.raises(SettingsError, match=message):
        read_header(tmp_path / "r.yaml")
