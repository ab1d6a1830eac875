"""The commands, built from typed signatures: one signature is the Python API, the flags and the recipe keys.

The command `buttress VERB` calls the function `VERB` of the module `buttress.commands.VERB`; only that module is
imported. Parameters before the `*` are positional, every other one is a flag (`teacher_size` is `--teacher-size`), and
the fields of a settings dataclass are dotted flags (`--optimizer.weight_decay`). A flag that takes a list is given
several times (`--teacher A --teacher B`), or as `2,1` where it holds numbers. A recipe (`--recipe FILE.yaml`) is flags
in a file: the same names, the same parser. Only what was given is passed on, so defaults live in the signature.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.errors import ButtressError, SettingsError
from buttress.interrupts import deaf_children
from buttress.memory import keep_freed_memory
from buttress.nearest import did_you_mean
from buttress.signature import REQUIRED, Argument, arguments_of, keyword_arguments, plain, type_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

VERBS = (
    "pack",
    "reinforce",
    "verify",
    "inspect",
    "train",
    "refine",
    "compress",
    "evaluate",
    "report",
    "predict",
    "fold",
    "export",
    "models",
    "recipes",
    "demo",
)
PACKAGE = "buttress.commands"
MISUSE = 2
INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell gives for SIGPIPE: `| head` had enough
_AGAIN = "run the same command again"
_GO_ON = {
    "pack": f"{_AGAIN} to go on",
    "reinforce": f"{_AGAIN} to go on",
    "refine": f"{_AGAIN} to go on",
    "train": f"{_AGAIN} with --resume to go on",
    "compress": f"{_AGAIN} with --resume to go on",
}  # the others start anew


def main(argv: Sequence[str] | None = None, *, package: str = PACKAGE, verbs: Sequence[str] = VERBS) -> int:
    """Run one command and return its exit code: its own, 2 for the user's mistakes, 130 when interrupted.

    Args:
        argv: the words after `buttress`; default: those of this process.
        package: the package whose modules are the commands.
        verbs: names of the commands, in the order of the help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview(package, verbs))
        return 0 if words else MISUSE
    if words[0] == "--version":
        print(f"buttress {version('buttress')}")
        return 0
    verb, *rest = words
    if verb not in verbs:
        suggestion = did_you_mean(verb, verbs)
        return _failed("buttress", f"there is no command {verb!r} (`buttress --help` lists them){suggestion}")
    try:
        function = getattr(importlib.import_module(f"{package}.{verb}"), verb)
        given = settings(function, rest)
        keep_freed_memory()
        with deaf_children():
            code = 0 if given is None else int(function(**given) or 0)
        sys.stdout.flush()  # so that a pipe that has closed is noticed here
        return code
    except ButtressError as error:
        if error.exit_code == MISUSE:
            return _failed(f"buttress {verb}", " ".join(str(error).splitlines()))
        print(f"buttress {verb}: {error}", file=sys.stderr)  # no mistake: it did as it was told
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more when it ends
        return PIPE_CLOSED
    except OSError as error:
        return _failed(f"buttress {verb}", _os_error(error))
    except KeyboardInterrupt:
        print(f"buttress {verb}: interrupted; {_GO_ON.get(verb, _AGAIN)}", file=sys.stderr)
        return INTERRUPTED


def _failed(place: str, message: str) -> int:
    print(f"{place}: error: {message}", file=sys.stderr)
    return MISUSE


def _os_error(error: OSError) -> str:
    """`FILE: what the system says`; of a rename the second name, for the first is a temporary one of ours."""
    name = error.filename if error.filename2 is None else error.filename2
    what = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return what if name is None else f"{name}: {what}"


def overview(package: str = PACKAGE, verbs: Sequence[str] = VERBS) -> str:
    """The help of `buttress` itself: each command with the first line of its docstring. Imports no command."""
    lines = ["usage: buttress COMMAND ...", "", "Makes small vision models strong.", "", "commands:"]
    lines += [f"  {verb:<10} {_first_line(f'{package}.{verb}', verb)}" for verb in verbs]
    lines += ["", "`buttress COMMAND --help` shows a command's flags, `buttress --version` the version."]
    return "\n".join(lines)


def _first_line(module: str, function: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return (ast.get_docstring(found) or "").split("\n", 1)[0]


def settings(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any] | None:
    """Turn the words of a command line into the keyword arguments of `function`; None when help was printed.

    A flag overrides the recipe's key of the same name. Arguments that nobody gave are left out.

    Raises: SettingsError for an unknown or missing name and for a wrong type; what a settings dataclass itself raises.
    """
    arguments = arguments_of(function)
    parser = build_parser(function, arguments)
    if "-h" in words or "--help" in words:
        print(re.sub(r", --\S+\+ \S+", "", parser.format_help()), end="")  # `--teacher+`: not our way to add to a list
        return None
    given = _parsed(parser, arguments, flag_words(words, arguments), "")
    recipe = given.pop("recipe", None)
    if recipe is not None:
        _refuse_other_verb(recipe, function.__name__)
        given = {**_parsed(parser, arguments, recipe_words(recipe, arguments), f"{recipe}: "), **given}
    for argument in arguments:
        if argument.default is REQUIRED and argument.key not in given:
            what = argument.help.rstrip(".") or type_name(argument.type)
            raise SettingsError(f"{argument.shown} is required ({what})")
    return keyword_arguments(function, given)


def build_parser(function: Callable[..., Any], arguments: Sequence[Argument]) -> ArgumentParser:
    """The parser of one command. To it nothing is required: a recipe may bring what the flags do not."""
    from jsonargparse import ActionYesNo, ArgumentParser

    parser = ArgumentParser(
        prog=f"buttress {function.__name__}",
        usage=_usage(function.__name__, arguments),
        description=re.split(r"\n\n(?:Args|Returns|Raises):", inspect.getdoc(function) or "")[0],
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    groups: dict[str, Any] = {"": parser}
    for argument in arguments:
        if argument.group not in groups:
            groups[argument.group] = parser.add_argument_group(argument.group)
        group, text = groups[argument.group], _help_text(argument)
        if argument.positional:
            group.add_argument(argument.key, nargs="?", type=argument.type, metavar=argument.shown, help=text)
        elif argument.type is bool:
            group.add_argument(argument.flag, action=ActionYesNo(no_prefix="no-"), help=text)
        else:
            group.add_argument(argument.flag, type=argument.type, metavar=type_name(argument.type), help=text)
    parser.add_argument(
        "--recipe",
        type=Path | None,
        metavar="FILE",
        help="YAML file with any of these flags as keys, or the name of one of `buttress recipes`",
    )
    return parser


def _usage(verb: str, arguments: Sequence[Argument]) -> str:
    nouns = [
        (argument.shown if argument.default is REQUIRED else f"[{argument.shown}]")
        + ("..." if argument.element is not None else "")
        for argument in arguments
        if argument.positional
    ]
    needed = [argument for argument in arguments if argument.default is REQUIRED and not argument.positional]
    flags = [f"{argument.flag} {type_name(argument.type)}" for argument in needed]
    return " ".join(["buttress", verb, *nouns, *flags, "[--flag VALUE ...]"])


def _help_text(argument: Argument) -> str:
    default, end = argument.default, ""
    if default is REQUIRED:
        end = "" if argument.positional else " (required)"
    elif isinstance(default, bool):
        end = " (default: on)" if default else ""
    elif default is not None and default != "":
        end = f" (default: {default})"
    return (argument.help + end).replace("%", "%%")


def flag_words(words: Sequence[str], arguments: Sequence[Argument]) -> list[str]:
    """The words of a command line with every flag in the spelling that the parser knows.

    Raises: SettingsError for a flag that no argument has, with the nearest that one has.
    """
    flags = {plain(argument.flag): argument for argument in arguments if not argument.positional}
    off = {plain(argument.negative): argument for argument in flags.values() if argument.type is bool}
    result: list[str] = []
    several: dict[str, list[str]] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--" or name == "--recipe":
            result.append(word)
        elif plain(name) in off:
            result.append(off[plain(name)].negative + equals + value)
        elif plain(name) in flags:
            argument = flags[plain(name)]
            if argument.element is not None and (equals or (left and not left[0].startswith("--"))):
                several.setdefault(argument.key, []).append(value if equals else left.pop(0))
                continue
            result.append(_word(argument, value, name) if equals else argument.flag)
        else:
            known = [argument.flag for argument in flags.values()]
            raise SettingsError(f"there is no flag {name}{did_you_mean(name, [*known, '--recipe'])}")
    lists = [
        f"{argument.flag}={_list(argument, several[argument.key])}"
        for argument in flags.values()
        if argument.key in several
    ]
    return [*lists, *_one_noun(result, arguments)]


def _one_noun(words: list[str], arguments: Sequence[Argument]) -> list[str]:
    """The nouns of a command that takes several as one list at the end; flags may stand between them."""
    noun = next((argument for argument in arguments if argument.positional and argument.element is not None), None)
    if noun is None:
        return words
    taking = {argument.flag for argument in arguments if not argument.positional and argument.type is not bool}
    kept: list[str] = []
    nouns: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        (kept if word.startswith("--") or before in {*taking, "--recipe"} else nouns).append(word)
    return [*kept, _list(noun, nouns)] if nouns else kept


def _list(argument: Argument, values: Sequence[str]) -> str:
    """The values of a flag that takes a list, as one: `2,1` is `[2,1]`, and so is the flag given twice."""
    if argument.element is str:
        return values[0] if len(values) == 1 else json.dumps(values)
    if values == ["null"]:
        return "null"
    return "[" + ",".join(value.strip().removeprefix("[").removesuffix("]") for value in values) + "]"


def _word(argument: Argument, value: str, place: str) -> str:
    if argument.element is not None:
        return f"{argument.flag}={_list(argument, [value])}"
    if argument.type is not bool:
        return f"{argument.flag}={value}"
    if value.lower() not in ("true", "false"):
        raise SettingsError(f"{place}: expected true or false, got {value!r}")
    return argument.flag if value.lower() == "true" else argument.negative


def _refuse_other_verb(recipe: Path, verb: str) -> None:
    """Raises: SettingsError, where a shipped recipe is of another command, with the line that runs it."""
    from buttress.recipes.shipped import read_header, recipe_path

    path = recipe_path(recipe)
    if path == recipe:
        return  # a file of the user's own
    command = read_header(path).command
    words = command.split()
    own = words[words.index("buttress") + 1]  # a launcher may stand before it
    if own != verb:
        raise SettingsError(f"--recipe {recipe}: is of buttress {own}, not {verb}; run {command}")


def recipe_words(path: Path, arguments: Sequence[Argument]) -> list[str]:
    """A recipe as the words of a command line.

    Raises: SettingsError, with file and line, for a key that no argument has (and the nearest that one has).
    """
    from buttress.recipe import read_recipe
    from buttress.recipes.shipped import recipe_path

    known = {argument.key: argument for argument in arguments}
    words: list[str] = []
    nouns: list[str] = []
    for key, text, place in read_recipe(recipe_path(path), set(known)):
        argument = known.get(plain(key))
        if argument is None:
            names = [argument.flag.removeprefix("--") for argument in arguments]
            raise SettingsError(f"{place}: there is no key {key!r}{did_you_mean(key, names)}")
        if argument.positional:
            nouns.append(text)
        else:
            words.append(_word(argument, text, f"{place}: {key}"))
    return [*words, "--", *nouns] if nouns else words


def _parsed(parser: ArgumentParser, arguments: Sequence[Argument], words: list[str], place: str) -> dict[str, Any]:
    """Dotted key -> value of what `words` give; an error begins with `place`."""
    try:
        namespace = parser.parse_args(words, defaults=False)
    except ArgumentError as error:
        raise SettingsError(place + _explained(str(error), arguments)) from error
    nouns = {argument.key for argument in arguments if argument.positional}
    return {key: value for key, value in namespace.items() if value is not None or key not in nouns}


def _explained(message: str, arguments: Sequence[Argument]) -> str:
    """One line out of jsonargparse's several."""
    key = re.match(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*?)(?:\n|\Z)", message)
    argument = next((argument for argument in arguments if key and argument.key == key[1]), None)
    if argument is None or value is None:
        return " ".join(message.split())
    shown = value[1].strip()
    if argument.element is not None:  # jsonargparse names the first value that is wrong
        return f"{argument.shown}: expected {type_name(argument.type)}, got {shown.strip(chr(39))!r}"
    return f"{argument.shown}: expected {type_name(argument.type)}, got {shown!r}"
