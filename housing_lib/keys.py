"""What a step is made of, part by part: the key that changes whenever its result could."""

import ast
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from housing_lib.files import file_digest
from housing_lib.parameters import cells_of, syntax_tree
from housing_lib.provenance import lock_digest

PACKAGE = Path(__file__).parent
PAGE_MAKERS = ("rendering",)
DRESS = ("templates", "__pycache__")  # what pages look like, and what Python leaves behind


def ingredients(
    *,
    notebook: Path | None,
    modules: Iterable[str] = (),
    tables: Mapping[str, str],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> dict[str, str]:
    """The parts that a step's result depends on, by name: digests, and parameters as they are.

    Text cells, outputs, comments and docstrings are none of them.

    Parameters
    ----------
    modules
        The modules that the step starts from, beside those that its notebook imports.
    tables
        Of such a table, as `families.FAMILIES`, the step reads this entry alone, or none.

    Raises
    ------
    NotebookError
        If the notebook cannot be read.
    """
    code = code_of(notebook) if notebook else ""
    found = {"code": _digest(_normal(_parse(code)))} if notebook else {}
    for name in sorted(modules_reached(code, modules)):
        found[f"module {name}"] = _module(name).digest(_entries(name, tables))
    found |= {f"parameter {name}": repr(value) for name, value in parameters.items()}
    found |= {f"input {name}": digest for name, digest in inputs.items()}
    return found | environment()


def key_of(made_of: Mapping[str, str]) -> str:
    """The digest of all parts together."""
    return _digest(json.dumps(made_of, sort_keys=True))


def environment() -> dict[str, str]:
    """The parts that every step shares: Python, the lock file, the package's own data files."""
    return {
        "python": platform.python_version(),
        "lock file": lock_digest(),
        "package data": _package_data(),
    }


def words_digest(notebook: Path) -> str:
    """The digest of what a page says and how it looks, beside the outputs of its code.

    Raises
    ------
    NotebookError
        If the notebook cannot be read.
    """
    texts = [_words(cell) for cell in cells_of(notebook)]
    dress = sorted(path for path in (PACKAGE / "templates").rglob("*") if path.is_file())
    made_by = [_module(name).digest(()) for name in PAGE_MAKERS if _path(name)]
    return _digest(json.dumps([texts, made_by, *(file_digest(path) for path in dress)]))


def _words(cell: Mapping[str, Any]) -> list[Any]:
    text = "" if cell["cell_type"] == "code" else "".join(cell["source"])
    return [text, cell["metadata"].get("tags", [])]


def code_of(notebook: Path) -> str:
    """The code cells of a notebook as one text.

    Raises
    ------
    NotebookError
        If it cannot be read.
    """
    cells = [cell["source"] for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    return "\n".join("".join(source) for source in cells)


def modules_reached(code: str, modules: Iterable[str] = ()) -> set[str]:
    """The modules of this package that code imports, and those that they import in turn."""
    reached: set[str] = set()
    waiting = _imports(_parse(code)) | set(modules)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= _module(name).imports() - reached
    return reached


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The names of the parts that differ, in order."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _parse(code: str) -> ast.Module:
    plain = re.sub(r"^\s*[%!].*$", "pass", code, flags=re.MULTILINE)
    try:
        return syntax_tree(plain)
    except SyntaxError:  # it will fail when it runs, and until then it is what it is
        return ast.Module([ast.Expr(ast.Constant(code))], [])


def _normal(tree: ast.AST) -> str:
    """A tree as text, without comments, places and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.dump(tree)


def _imports(tree: ast.AST, package: str = "") -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    own = {name.removeprefix("housing_lib.") for name in found if name.startswith("housing_lib.")}
    return {name for name in own if _path(name)}


def _path(name: str) -> Path | None:
    place = PACKAGE.joinpath(*name.split("."))
    both = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in both if path.exists()), None)


def _module(name: str) -> "_Module":
    path = _path(name)
    return _Module(name, path.read_text() if path else "")


@dataclass(frozen=True)
class _Module:
    """A module as it is now; what is found in it is remembered for as long as it stays so."""

    name: str
    text: str

    @property
    def package(self) -> str:
        is_package = PACKAGE.joinpath(*self.name.split(".")).is_dir()
        inside = self.name if is_package else self.name.rpartition(".")[0]
        return f"housing_lib.{inside}".rstrip(".")

    @lru_cache(maxsize=512)  # noqa: B019 (modules are few)
    def imports(self) -> frozenset[str]:
        return frozenset(_imports(syntax_tree(self.text), package=self.package))

    @lru_cache(maxsize=512)  # noqa: B019
    def digest(self, entries: tuple[tuple[str, str], ...]) -> str:
        tree = syntax_tree(self.text)
        for table, entry in entries:
            _keep_entry(tree, table, entry)
        return _digest(_normal(tree))


def _entries(module: str, tables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    split = {name.rpartition(".")[::2]: entry for name, entry in tables.items()}
    return tuple((table, entry) for (owner, table), entry in split.items() if owner == module)


def _keep_entry(tree: ast.Module, table: str, entry: str) -> None:
    """Take all entries but one out of a dictionary that a module assigns at its top."""
    for node in tree.body:
        named = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
        if isinstance(node, ast.Assign):
            named = ast.unparse(node.targets[0])
        if named == table and isinstance(node.value, ast.Dict):  # type: ignore[attr-defined]
            found = node.value  # type: ignore[attr-defined]
            kept = [
                (key, value)
                for key, value in zip(found.keys, found.values, strict=True)
                if not (isinstance(key, ast.Constant) and key.value != entry)
            ]
            found.keys, found.values = [k for k, _ in kept], [v for _, v in kept]


def _package_data() -> str:
    files = [
        path
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and path.suffix != ".py" and not set(DRESS) & set(path.parts)
    ]
    return _digest(json.dumps([file_digest(path) for path in files]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
