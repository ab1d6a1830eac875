"""The command line: flags, recipes, errors (R29-R32), on toy commands and on the real ones."""

from __future__ import annotations

import importlib
import inspect
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from buttress import cli
from buttress.errors import SettingsError
from buttress.signature import REQUIRED, arguments_of, type_name

BAKE = '''
"""A toy command."""
import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from buttress.errors import SettingsError, SourceError


@dataclass(frozen=True, kw_only=True)
class Glaze:
    """How it shines.

    Attributes:
        thickness: in millimetres, 0 to 5.
        shiny: whether it shines.
    """

    thickness: float = 1.5
    shiny: bool = True

    def __post_init__(self):
        if not 0 <= self.thickness <= 5:
            raise SettingsError(f"glaze.thickness is {self.thickness}; it must lie in 0..5")


@dataclass(frozen=True, kw_only=True)
class Oven:
    """The oven.

    Attributes:
        degrees: Celsius.
        glaze: what goes on top.
    """

    degrees: int = 180
    glaze: Glaze = field(default_factory=lambda: Glaze(thickness=2.0))


CALLS = []


def bake(
    cake: Path,
    *,
    flour: str,
    egg_count: int = 3,
    sugar: float | None = None,
    sizes: list[int] | None = None,
    kind: Literal["round", "square"] = "round",
    dry_run: bool = False,
    oven: Oven = Oven(),
):
    """Bake a cake.

    It takes 100 % of an oven.

    Args:
        cake: the tin.
        flour: the kind of flour.
        egg_count: how many eggs.
        sugar: grams of sugar.
        sizes: sizes of the tins.
        kind: form of the tin.
        dry_run: only say what would be done.
        oven: the oven.
    """
    CALLS.append(dict(locals()))
    if flour == "sand":
        raise SourceError("sand is not flour\\nuse flour")
    if flour == "hot":
        raise KeyboardInterrupt
    if flour == "spilt":
        open(cake / "crumb")
    if flour == "moved":
        (cake / "temporary").write_text("")
        (cake / "temporary").rename(cake / "no" / "name")
    if flour == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    return 1 if dry_run else None
'''


@pytest.fixture(scope="module")
def bake(tmp_path_factory):
    """The toy command's module."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_commands").mkdir()
    (folder / "toy_commands" / "__init__.py").write_text("")
    (folder / "toy_commands" / "bake.py").write_text(BAKE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("toy_commands.bake")
    sys.path.remove(str(folder))


@pytest.fixture
def run(bake, capsys):
    """Run the toy command: (exit code, what it was called with or None, stdout, stderr)."""

    def call(*words):
        bake.CALLS.clear()
        code = cli.main(["bake", *map(str, words)], package="toy_commands", verbs=("bake",))
        out, err = capsys.readouterr()
        return code, (bake.CALLS or [None])[0], out, err

    return call


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe file."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def assert_misuse(result, *parts):
    code, called, out, err = result
    assert code == 2
    assert called is None
    assert out == ""
    assert err.startswith("buttress bake: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_defaults_are_those_of_the_signature(run, bake):
    code, called, _, _ = run("tin", "--flour", "rye")
    assert code == 0
    assert called == {
        "cake": Path("tin"),
        "flour": "rye",
        "egg_count": 3,
        "sugar": None,
        "sizes": None,
        "kind": "round",
        "dry_run": False,
        "oven": bake.Oven(),
    }


def test_every_type_is_read(run, bake):
    words = "tin --flour=123 --egg-count 4 --sugar 1e-3 --sizes [1,2] --kind square --dry-run --oven.degrees 200"
    code, called, _, _ = run(*words.split(), "--oven.glaze.thickness", "3", "--no-oven.glaze.shiny")
    assert code == 1
    assert called["flour"] == "123"
    assert called["egg_count"] == 4
    assert called["sugar"] == 0.001
    assert called["sizes"] == [1, 2]
    assert called["kind"] == "square"
    assert called["dry_run"] is True
    assert called["oven"] == bake.Oven(degrees=200, glaze=bake.Glaze(thickness=3.0, shiny=False))


def test_a_field_leaves_its_neighbours_as_the_signature_has_them(run, bake):
    _, called, _, _ = run("tin", "--flour=rye", "--oven.glaze.shiny=false")
    assert called["oven"].glaze == bake.Glaze(thickness=2.0, shiny=False)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["tin", "--flour=a", "--eg-count=3"], ["--eg-count", "did you mean --egg-count?"]),
        (["tin", "--flour=a", "--egg"], ["no flag --egg"]),
        (["tin", "--flour=a", "--oven.degres=3"], ["did you mean --oven.degrees?"]),
        (["tin", "--flour=a", "--oven.glaze.thick=3"], ["no flag --oven.glaze.thick"]),
        (["tin", "--flour=a", "--recpe=x.yaml"], ["did you mean --recipe?"]),
        (["tin", "--flour=a", "--no-dry-ru"], ["no flag --no-dry-ru"]),
        (["tin", "--flour=a", "--oven={degrees: 3}"], ["no flag --oven"]),
        (["tin", "--flour=a", "--oven.class_path=os.system"], ["no flag --oven.class_path"]),
        (["tin", "--flour=a", "--egg-count=three"], ["--egg-count: expected INT, got 'three'"]),
        (["tin", "--flour=a", "--egg-count=1.5"], ["--egg-count: expected INT, got '1.5'"]),
        (["tin", "--flour=a", "--sugar=lots"], ["--sugar: expected NUMBER, got 'lots'"]),
        (["tin", "--flour=a", "--sizes=[1,x]"], ["--sizes: expected [INT,...], got "]),
        (["tin", "--flour=a", "--kind=flat"], ["--kind: expected round|square, got 'flat'"]),
        (["tin", "--flour=a", "--dry-run=maybe"], ["--dry-run: expected true or false, got 'maybe'"]),
        (["tin", "--flour=a", "--oven.glaze.thickness=9"], ["glaze.thickness is 9.0; it must lie in 0..5"]),
        (["tin", "--flour=a", "--egg-count"], ["--egg-count: expected one argument"]),
        (["tin", "--flour=a", "more"], ["unrecognized arguments: more"]),
        (["tin"], ["--flour is required (the kind of flour)"]),
        (["--flour=a"], ["CAKE is required (the tin)"]),
        (["tin", "--flour=a", "--recipe=/nowhere.yaml"], ["/nowhere.yaml", "cannot be read"]),
    ],
)
def test_R30_a_wrong_command_line_is_one_line_and_exit_2(run, words, parts):
    assert_misuse(run(*words), *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("egg-cuont: 3", ["line 1", "no key 'egg-cuont'", "did you mean egg-count?"]),
        ("flour: a\noven:\n  degres: 3", ["line 3", "'oven.degres'", "did you mean oven.degrees?"]),
        ("oven: {class_path: os.system}", ["no key 'oven.class_path'"]),
        ("class_path: os.system", ["no key 'class_path'"]),
        ("flour: a\nflour: b", ["line 2", "'flour' stands twice"]),
        ("oven: {degrees: 1}\noven: {degrees: 2}", ["'oven.degrees' stands twice"]),
        ("egg-count: 1\negg_count: 2", ["stands twice"]),
        ("- flour", ["a recipe is a mapping"]),
        ("just text", ["a recipe is a mapping"]),
        ("", ["a recipe is a mapping"]),
        ("flour: !!python/object/apply:os.system [ls]", ["line 1", "the tag", "is not allowed"]),
        ("flour: !mine a", ["the tag '!mine' is not allowed"]),
        ("!!python/name:os.system flour: a", ["is not allowed"]),
        ("flour: &a x\nkind: *a", ["line 2", "no aliases"]),
        ("[flour, x]: a", ["a key is a single word"]),
        ("flour: [a", ["not valid YAML"]),
        ("flour: a\n---\nflour: b", ["not valid YAML"]),
        ("x: " + "[" * 5000, ["nested deeper than"]),
        ("egg-count: many", ["recipe.yaml: --egg-count: expected INT, got 'many'"]),
        ("egg-count: {a: 1}", ["--egg-count: expected INT"]),
        ("sizes: [1, x]", ["--sizes: expected [INT,...]"]),
        ("dry-run: 3", ["dry-run: expected true or false, got '3'"]),
        ("oven: 3", ["no key 'oven'"]),
        ("oven: {glaze: {thickness: -1}}", ["it must lie in 0..5"]),
        ("recipe: other.yaml", ["no key 'recipe'"]),
    ],
)
def test_R30_a_wrong_recipe_is_one_line_and_exit_2(run, recipe, text, parts):
    assert_misuse(run("tin", "--flour=a", "--recipe", recipe(text)), *parts)


def test_R30_a_recipe_that_is_no_text_is_refused(run, tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert_misuse(run("tin", "--recipe", tmp_path / "r.yaml"), "not valid YAML")
    assert_misuse(run("tin", "--recipe", tmp_path), "cannot be read")


def test_flags_override_the_recipe(run, recipe):
    path = recipe("cake: mould\nflour: rye\negg-count: 7\ndry-run: true\noven:\n  degrees: 99\n  glaze: {thickness: 1}")
    _, called, _, _ = run("--recipe", path, "--egg-count=8", "--oven.degrees", "100", "--no-dry-run")
    assert called["cake"] == Path("mould")
    assert called["flour"] == "rye"
    assert called["egg_count"] == 8
    assert called["dry_run"] is False
    assert called["oven"].degrees == 100
    assert called["oven"].glaze.thickness == 1
    assert run("--egg-count=8", "--recipe", path)[1]["egg_count"] == 8
    assert run("tin", "--recipe", path)[1]["cake"] == Path("tin")


def test_R32_python_flags_and_yaml_resolve_to_the_same(bake, recipe):
    same = {
        "cake": Path("a b"),
        "flour": "no: yes",
        "egg_count": -2,
        "sugar": 1e-3,
        "sizes": [3, 4],
        "kind": "square",
        "dry_run": True,
        "oven": bake.Oven(degrees=5, glaze=bake.Glaze(thickness=2.5, shiny=False)),
    }
    flags = ["a b", "--flour", "no: yes", "--egg-count=-2", "--sugar=1e-3", "--sizes", "[3,4]", "--kind=square"]
    flags += ["--dry_run", "--oven.degrees=5", "--oven.glaze.thickness=2.5", "--no-oven.glaze.shiny"]
    text = (
        "cake: a b\nflour: 'no: yes'\negg_count: -2\nsugar: 1e-3\nsizes:\n  - 3\n  - 4\nkind: square\ndry-run: true\n"
        "oven:\n  degrees: 5\n  glaze:\n    thickness: 2.5\n    shiny: false\n"
    )
    assert cli.settings(bake.bake, flags) == same
    assert cli.settings(bake.bake, ["--recipe", str(recipe(text))]) == same


def test_null_in_a_recipe_is_none(bake, recipe):
    given = cli.settings(bake.bake, ["tin", "--flour=a", "--recipe", str(recipe("sugar:\nsizes: null"))])
    assert given is not None
    assert given["sugar"] is None
    assert given["sizes"] is None


def test_an_error_of_the_command_is_one_line_and_exit_2(run):
    code, _, _, err = run("tin", "--flour=sand")
    assert (code, err) == (2, "buttress bake: error: sand is not flour use flour\n")


def test_an_interrupt_is_one_line_and_exit_130(run):
    code, _, _, err = run("tin", "--flour=hot")
    assert (code, err) == (130, "buttress bake: interrupted; run the same command again\n")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_an_interrupt_says_what_is_true_of_the_command(verb, monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{cli.PACKAGE}.{verb}.{verb}", interrupted)
    monkeypatch.setattr(cli, "settings", lambda *_: {})
    assert cli.main([verb]) == 130
    ends = dict.fromkeys(("pack", "reinforce", "refine"), "again to go on")
    ends |= dict.fromkeys(("train", "compress"), "again with --resume to go on")
    end = ends.get(verb, "again")
    assert capsys.readouterr().err == f"buttress {verb}: interrupted; run the same command {end}\n"


@pytest.mark.parametrize(
    ("flour", "said"),
    [
        ("spilt", "{tin}/crumb: No such file or directory"),
        ("moved", "{tin}/no/name: No such file or directory"),
        ("full", "No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_the_file_and_exit_2(run, tmp_path, flour, said):
    code, _, _, err = run(tmp_path, f"--flour={flour}")
    assert (code, err) == (2, f"buttress bake: error: {said.format(tin=tmp_path)}\n")


def test_help_of_a_command_shows_flags_defaults_and_groups(run):
    code, called, out, _ = run("--help")
    assert (code, called) == (0, None)
    assert "usage: buttress bake CAKE --flour TEXT [--flag VALUE ...]" in out
    assert "It takes 100 % of an oven." in out
    assert "Args:" not in out
    for part in ("how many eggs. (default: 3)", "the kind of flour. (required)", "--dry-run, --no-dry-run", "--recipe"):
        assert part in out
    assert "the oven:\n" in out
    assert "--oven.glaze.thickness NUMBER" in out


def test_wrong_weights_of_teachers_are_told_in_our_words(capsys):
    for words in ("a,b", "2,a"):
        assert cli.main(["reinforce", "--source=x", "--out=o", "--teacher=a", "--teacher-weights", words]) == 2
        line = capsys.readouterr().err
        assert line.startswith("buttress reinforce: error: --teacher-weights: expected ")
        assert line.endswith(", got 'a'\n")


@pytest.mark.parametrize(("verb", "noun"), [("models", "[FILTER]"), ("recipes", "[NAME]"), ("evaluate", "MODEL")])
def test_usage_shows_which_words_may_be_left_out(verb, noun, capsys):
    assert cli.main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: buttress {verb} {noun} ")


def test_refine_refuses_a_setting_of_a_second_head_in_one_line(tmp_path, capsys):
    words = ["--model=timm:test_resnet", "--data=digits", f"--out={tmp_path / 'x'}", "--loss.auxiliary_weight=2"]
    assert cli.main(["refine", *words]) == 2
    line = capsys.readouterr().err
    assert (
        "loss.auxiliary_weight = 2.0: of no effect here (auxiliary_weight is of --head auxiliary); leave it out" in line
    )
    assert line.count("\n") == 1


def test_a_shipped_recipe_of_another_command_is_told_with_the_line_that_runs_it(capsys):
    assert cli.main(["reinforce", "--recipe", "digits-hard"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("buttress reinforce: error: --recipe digits-hard: is of buttress train, not reinforce; run ")
    assert line.count("\n") == 1


def test_a_misspelt_command_is_refused_and_the_right_one_suggested(capsys):
    assert cli.main(["renforce"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("buttress: error: there is no command 'renforce'")
    assert err.endswith("; did you mean reinforce?\n")
    assert err.count("\n") == 1
    assert cli.main(["xylophone"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_version_and_overview(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("buttress ")
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in cli.VERBS:
        assert any(line.startswith(f"  {verb} ") and len(line) > 25 for line in lines)


def real(verb):
    """The function of a real command."""
    return getattr(importlib.import_module(f"{cli.PACKAGE}.{verb}"), verb)


def an_example(argument):
    """Some text that its type accepts."""
    examples = {"TEXT": "x", "INT": "1", "NUMBER": "0.5", "PATH": "p", "true|false": "true", "[INT,...]": "[1]"}
    examples["[NUMBER,...]"] = "0.5,2"
    examples["[tensorboard|wandb|mlflow,...]"] = "[tensorboard,mlflow]"
    if argument.key == "subspace.corners":
        return "2"
    name = type_name(argument.type)
    return examples.get(name, name.split("|")[0])


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_argument_of_a_command_has_help(verb):
    assert inspect.getdoc(real(verb))
    for argument in arguments_of(real(verb)):
        assert argument.help, argument.key


@pytest.mark.parametrize("verb", cli.VERBS)
def test_R29_every_key_misspelt_by_one_letter_is_refused_and_the_right_one_suggested(verb, tmp_path):
    arguments = arguments_of(real(verb))
    known = {argument.flag for argument in arguments}
    for argument in arguments:
        key = argument.flag.removeprefix("--")
        for index, letter in enumerate(key):
            wrong = key[:index] + ("q" if letter != "q" else "w") + key[index + 1 :]
            assert f"--{wrong}" not in known
            (tmp_path / "r.yaml").write_text(yaml.safe_dump({wrong: an_example(argument)}))
            with pytest.raises(SettingsError, match=rf"did you mean (.* or )?{key}( or .*)?\?"):
                cli.recipe_words(tmp_path / "r.yaml", arguments)
            if not argument.positional:
                with pytest.raises(SettingsError, match=rf"did you mean (.* or )?--{key}( or .*)?\?"):
                    cli.flag_words([f"--{wrong}"], arguments)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_R32_every_key_of_a_real_command_reads_the_same_from_flags_and_yaml(verb, tmp_path):
    function = real(verb)
    needed = [argument for argument in arguments_of(function) if argument.default is REQUIRED]
    for argument in arguments_of(function):
        nested = needed if argument in needed else [*needed, argument]
        given = {each.flag.removeprefix("--"): an_example(each) for each in nested}
        (tmp_path / "r.yaml").write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
        words = [given[each.flag.removeprefix("--")] for each in needed if each.positional]
        words += [f"{each.flag}={an_example(each)}" for each in nested if not each.positional]
        if argument.positional and argument not in needed:
            words.append(an_example(argument))
        assert cli.settings(function, words) == cli.settings(function, ["--recipe", str(tmp_path / "r.yaml")])


@pytest.mark.parametrize(
    ("words", "recipe_text", "resolved"),
    [
        (["--teacher=a,b"], "teacher: 'a,b'", {"teacher": "a,b"}),
        (["--teacher", "a", "--teacher=b"], "teacher: [a, b]", {"teacher": ["a", "b"]}),
        (["--teacher=a:b:c", "--teacher", "d e"], "teacher:\n  - a:b:c\n  - d e", {"teacher": ["a:b:c", "d e"]}),
        (["--teacher-weights", "2,1"], "teacher-weights: [2, 1]", {"teacher_weights": [2.0, 1.0]}),
        (["--teacher-weights=[2, 0.5]"], "teacher_weights: 2,0.5", {"teacher_weights": [2.0, 0.5]}),
        (["--teacher-weights=2", "--teacher-weights=1"], "teacher-weights:\n- 2\n- 1", {"teacher_weights": [2.0, 1.0]}),
    ],
)
def test_R32_a_flag_of_several_values_reads_the_same_from_flags_and_yaml(words, recipe_text, resolved, recipe):
    needed = ["--source=x", "--out=o", *([] if "teacher" in resolved else ["--teacher=t"])]
    expected = {"source": "x", "out": Path("o"), "teacher": "t", **resolved}
    assert cli.settings(real("reinforce"), [*needed, *words]) == expected
    assert cli.settings(real("reinforce"), [*needed, "--recipe", str(recipe(recipe_text))]) == expected


@pytest.mark.parametrize(
    ("words", "text", "nouns"),
    [
        (["a.json"], "run_or_json: a.json", "a.json"),
        (["a", "--out=o", "b c", "d,e"], "run-or-json: [a, b c, 'd,e']\nout: o", ["a", "b c", "d,e"]),
        (["a", "--out", "o", "run:b"], "run_or_json:\n- a\n- run:b\nout: o", ["a", "run:b"]),
        (["--out", "o", "a", "a"], "run_or_json: [a, a]\nout: o", ["a", "a"]),
    ],
)
def test_R32_several_nouns_read_the_same_from_words_and_yaml(words, text, nouns, recipe):
    expected = {"run_or_json": nouns, **({"out": Path("o")} if "out" in text else {})}
    assert cli.settings(real("report"), words) == expected
    assert cli.settings(real("report"), ["--recipe", str(recipe(text))]) == expected


def test_R30_a_command_of_several_nouns_wants_one_at_least(capsys):
    assert cli.main(["report", "--out", "o"]) == 2
    assert "RUN_OR_JSON is required" in capsys.readouterr().err
    assert cli.main(["report", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: buttress report RUN_OR_JSON... [--flag")


def test_R30_wrong_values_of_a_list_are_told_in_one_line(capsys):
    for words in (["--teacher-weights", "2,x"], ["--teacher-weights"], ["--teacher"], ["--teacher+=a"]):
        assert cli.main(["reinforce", "--source=x", "--out=o", *words]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert words[0].rstrip("+=a") in line
        assert "Parser" not in line
    assert cli.main(["reinforce", "--help"]) == 0
    assert "--teacher+" not in capsys.readouterr().out  # jsonargparse's own way to add to a list, which is not ours


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_R31_help_does_not_import_torch(verb):
    code = (
        "import sys; from buttress.cli import main\n"
        f"code = main({[verb, '--help'] if verb else ['--help']})\n"
        "heavy = {'torch', 'timm', 'torchvision', 'accelerate', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: buttress")


def test_R31_help_takes_little_more_than_the_parser_library():
    """Others use this machine too, so processor times are compared."""

    def used(*words: str) -> float:
        times = []
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    library, ours = used("-c", "import jsonargparse, docstring_parser"), used("-m", "buttress", "train", "--help")
    print(library, ours)
    assert ours < 2 * library


def test_the_module_runs_as_a_program():
    result = subprocess.run([sys.executable, "-m", "buttress", "nonsense"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
