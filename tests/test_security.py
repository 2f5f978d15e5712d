"""What the code never does: load pickles, evaluate text, start shells."""

import ast
import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lakehouse.releases import Release, ReleaseCorrupt, TowerContents, open_release, verify_release
from models.increc.model import CorruptModel, TrainedModel
from tests.conftest import REPOSITORY
from tests.tasks.small_releases import small_contents, write_small
from tests.tasks.test_pyfunc import trained_tower

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


class Payload:
    """What a pickle of it does when it is loaded: it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_the_payload_of_these_tests_would_do_something(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "done")))
    assert (tmp_path / "done").is_dir()


@pytest.fixture(scope="module")
def model_files() -> dict[str, bytes]:
    return dict(trained_tower()[0].for_serving().to_files())


def write_objects(path: Path, payload: Payload) -> None:
    np.save(path, np.array([payload], dtype=object), allow_pickle=True)


def write_pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


ARRAYS: dict[str, Callable[[Release], object]] = {
    "popular_item_ids.npy": lambda release: release.popular_item_ids,
    "candidates/merged/item_ids.npy": lambda release: release.candidates("merged"),
    "base/user_embeddings.npy": lambda release: release.channel("base").user_embeddings,
}


@pytest.mark.parametrize("write", [write_objects, write_pickle])
@pytest.mark.parametrize("name", ARRAYS)
def test_release_whose_array_is_a_pickle_is_refused_and_the_pickle_not_loaded(
    tmp_path: Path, model_files: dict[str, bytes], name: str, write: Callable[[Path, Payload], None]
) -> None:
    ids, vectors = np.arange(3), np.zeros((3, 4), np.float32)
    weights, config = model_files["model.safetensors"], model_files["config.json"]
    tower = TowerContents(weights, config, ids, vectors, ids, vectors, b"index")
    contents = small_contents(towers={"base": tower}, quotas={"swing": 5, "base": 5})
    write_small(tmp_path / "release", contents)
    ARRAYS[name](open_release(tmp_path / "release"))
    write(tmp_path / "release" / name, Payload(tmp_path / "done"))
    with pytest.raises(ValueError, match=r"Python objects|pickle"):
        ARRAYS[name](open_release(tmp_path / "release"))
    with pytest.raises(ReleaseCorrupt, match=f"{name} was changed"):
        verify_release(tmp_path / "release")
    assert not (tmp_path / "done").exists()


def torch_bytes(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


@pytest.mark.parametrize("dump", [pickle.dumps, torch_bytes])
def test_model_whose_weights_are_a_pickle_is_refused_and_the_pickle_not_loaded(
    tmp_path: Path, model_files: dict[str, bytes], dump: Callable[[Payload], bytes]
) -> None:
    TrainedModel.from_files(model_files)
    with pytest.raises(CorruptModel, match="are no increc model"):
        TrainedModel.from_files(model_files | {"model.safetensors": dump(Payload(tmp_path / "done"))})
    assert not (tmp_path / "done").exists()
