"""The fenced code blocks of a Markdown page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))


@dataclass(frozen=True)
class CodeBlock:
    """A block: what stands behind its opening fence, and its lines."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file it is, where its first line is a comment that names one: `# name.py`."""
        named = re.match(r"# (\S+\.\w+)\n", self.text)
        return named[1] if named else None

    def definitions(self) -> dict[str, Any]:
        """What a Python block imports and defines; the rest of it is not run."""
        kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        body: list[ast.stmt] = [statement for statement in ast.parse(self.text).body if isinstance(statement, kept)]
        names: dict[str, Any] = {"__name__": "block"}
        exec(compile(ast.Module(body, type_ignores=[]), "block", "exec"), names)
        return names

    def commands(self) -> Iterator[str]:
        """The command lines of a shell block; a line that ends in a backslash goes on in the next."""
        yield from (line for line in self.text.replace("\\\n", " ").splitlines() if line.split("#")[0].strip())


def block_with(page: Path, text: str) -> CodeBlock:
    """The one block of a page that contains `text`."""
    (block,) = (block for block in code_blocks(page) if text in block.text)
    return block


def code_blocks(page: Path) -> list[CodeBlock]:
    """All blocks of a page in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [CodeBlock(language, text) for language, text in found]
