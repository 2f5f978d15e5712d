"""What the code never does: load pickles, evaluate text, start shells."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

FOLDERS = ("dags", "lakehouse", "models", "nearline", "services", "tasks")
SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "torch.load", "yaml.load", "pd.read_pickle", "os.system", "os.popen"}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Give what a module does that it must not, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from (f"{node.lineno}: imports {n}" for n in names if n.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        is_on = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
        if called in CALLS or is_on & {"shell", "allow_pickle"}:
            yield f"{node.lineno}: calls {called}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_module_does_nothing_of_the_kind(path: Path) -> None:
    assert list(forbidden(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "eval(x)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_it_would_be_seen(text: str) -> None:
    assert len(list(forbidden(ast.parse(text)))) == 1


def test_an_array_file_that_is_a_pickle_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "evil.npy")
