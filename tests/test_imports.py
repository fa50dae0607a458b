"""The house: which rooms there are, and that each imports only from rooms above it."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the foundations up to what stands on all of them.
HOUSE = {
    "keras_cnv2": "arguments errors files terminal optional_packages keras_internals sizes distribute kernels layers "
    "images optimizers checkpoints folding models fcmae segmentation detection restore pretrained export keras_hub "
    "commands",
    "training": "errors files drawing analysis models recipes data distribute loop evaluation runs reports commands",
}
ROOMS = {package: rooms.split() for package, rooms in HOUSE.items()}

# What starts the commands of both packages.
COMMAND = "keras_cnv2_command"

# What stands on the library, none of which a folder may import.
FORBIDDEN = {
    "keras_cnv2": {
        "training",
        "weights",
        "tests",
        "benchmarks",
        "tensorflow_datasets",
        "matplotlib",
        "sklearn",
        COMMAND,
    },
    "training": {"weights", "tests", "benchmarks", COMMAND},
    "weights": {"training", "tests", "benchmarks", COMMAND},
}


def files(folder):
    found = [*(ROOT / folder).rglob("*.py")]
    assert found
    return found


def imported(path, nodes=None):
    """Dotted names of all that a file imports, anywhere in it: packages, modules, and names out of modules."""
    for node in ast.walk(ast.parse(path.read_text())) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = dotted(path, "." * node.level + (node.module or ""))
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            yield dotted(path, beginning(node.args[0]))


def dotted(path, name):
    """The name of a module that a file calls `name`, with a dot in front for each folder up to that of the module."""
    level = len(name) - len(name.lstrip("."))
    package = path.relative_to(ROOT).parts[:-1]
    return ".".join([*(package[: len(package) - level + 1] if level else ()), *filter(None, name.split("."))])


def called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", None))


def beginning(node):
    """The text of an expression, of an f-string that before its first value; empty if that is not in the code."""
    value = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def roots(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_direction(folder):
    wrong = {str(path): found for path in files(folder) if (found := FORBIDDEN[folder] & roots(imported(path)))}
    assert wrong == {}


@pytest.mark.parametrize("package", ROOMS)
def test_listing(package):
    """All rooms are in the list, and the list has no others."""
    entries = [path for path in (ROOT / package).iterdir() if path.is_dir() or path.suffix == ".py"]
    found = {path.stem for path in entries if not path.name.startswith("__")}
    assert found == {*ROOMS[package]}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_from_rooms_above(package):
    place = {room: number for number, room in enumerate(ROOMS[package])}
    top = len(place) - 1  # where a name out of the package itself may be used: most of them are of its upper rooms
    wrong = []
    for path in files(package):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for name in imported(path):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == package and place.get(other, top) > place.get(room, top):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("package", ROOMS)
def test_no_circles(package):
    """Nor between the files of a room."""
    modules = {module_of(path): path for path in files(package)}

    def module_in(name):
        """The module of the package that a name is, or is in."""
        return name if name in modules or not name else module_in(name.rpartition(".")[0])

    graph = {name: {*map(module_in, imported(path))} - {name, ""} for name, path in modules.items()}
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("def load():\n    import keras_cnv2.models as models", "keras_cnv2.models"),
        ("class Loader:\n    from ..models import classifier", "keras_cnv2.models.classifier"),
        ("from .. import models", "keras_cnv2.models"),
        ("from . import grn", "keras_cnv2.layers.grn"),
        ("from .grn import GRN", "keras_cnv2.layers.grn.GRN"),
        ("importlib.import_module('keras_cnv2.models')", "keras_cnv2.models"),
        ("import_module('..models', __package__)", "keras_cnv2.models"),
        ("import_module(f'..models.{name}', __package__)", "keras_cnv2.models"),
        ("__import__('keras_cnv2.models')", "keras_cnv2.models"),
    ],
)
def test_imports_are_seen(code, name):
    assert [*imported(ROOT / "keras_cnv2" / "layers" / "block.py", ast.walk(ast.parse(code)))] == [name]


@pytest.mark.parametrize("package", ROOMS)
def test_map_of_the_package(package):
    """The docstring names the rooms in their order."""
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    listed = [line.split()[0].strip("/") for line in text.splitlines() if line.startswith("    ")]
    assert listed == ROOMS[package]


def test_application_imports_itself_relatively():
    """In the wheel it has another name, keras_cnv2_training."""
    assert {path for path in files("training") if "training" in roots(imported(path, absolute(path)))} == set()


def absolute(path):
    """What a file imports by a whole name, among other things."""
    for node in ast.walk(ast.parse(path.read_text())):
        relative = getattr(node, "level", 0)
        if isinstance(node, ast.Call) and node.args:
            relative = beginning(node.args[0]).startswith(".")
        if not relative:
            yield node


def test_training_imports_what_draws_where_it_draws():
    drawing = {"matplotlib", "sklearn"}
    trees = {path: ast.parse(path.read_text()) for path in files("training")}
    assert {
        str(path): found for path, tree in trees.items() if (found := drawing & roots(imported(path, tree.body)))
    } == {}


@pytest.mark.parametrize("room", ["loop", "recipes", "runs", "models"])
def test_no_tensorflow_where_any_backend_trains(room):
    assert {path for path in files(f"training/{room}") if "tensorflow" in roots(imported(path))} == set()


def test_no_tensorflow_where_none_is_promised():
    trees = {path: ast.parse(path.read_text()) for path in files("training")}
    promised = {path for path, tree in trees.items() if "mports no TensorFlow" in (ast.get_docstring(tree) or "")}
    assert len(promised) > 5
    assert {path for path in promised if "tensorflow" in roots(imported(path, trees[path].body))} == set()


def test_import_is_light():
    # Counted from what Keras itself imports: matplotlib and scikit-learn, where it finds them.
    code = "import sys, keras; before = {*sys.modules}; import keras_cnv2; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = roots(run.stdout.split())
    assert "keras_cnv2" in loaded
    heavy = {"tensorflow_datasets", "matplotlib", "keras_cv", "keras_hub", "torch", "sklearn", "tqdm"}
    heavy |= {"huggingface_hub", "safetensors"}  # light, but not everywhere, and only where weights are read
    assert loaded & (heavy | {"training", "weights", "tests", "benchmarks"}) == set()
