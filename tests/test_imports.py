"""The house: which rooms there are, and that each imports only from rooms above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the foundations up to what stands on all of them.
HOUSE = {
    "keras_cnv2": "arguments errors files terminal optional_packages sizes distribute kernels layers images optimizers "
    "checkpoints folding models fcmae segmentation detection restore export commands",
    "training": "errors files drawing analysis models recipes data distribute loop evaluation runs reports commands",
}
ROOMS = {package: rooms.split() for package, rooms in HOUSE.items()}

# What stands on the library, none of which a folder may import.
FORBIDDEN = {
    "keras_cnv2": {"training", "weights", "tests", "benchmarks", "tensorflow_datasets", "matplotlib", "sklearn"},
    "training": {"weights", "tests", "benchmarks"},
    "weights": {"training", "tests", "benchmarks"},
}


def files(folder):
    found = [*(ROOT / folder).rglob("*.py")]
    assert found
    return found


def imported(path, nodes=None):
    """Dotted names of all that a file imports, anywhere in it: packages, modules, and names out of modules."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


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
    wrong = []
    for path in files(package):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for name in imported(path):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == package and other in place and place[other] > place.get(room, len(place)):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


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
    nodes = ast.walk(ast.parse(path.read_text()))
    return [
        node for node in nodes if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
    ]


def test_training_imports_what_draws_where_it_draws():
    drawing = {"matplotlib", "sklearn"}
    trees = {path: ast.parse(path.read_text()) for path in files("training")}
    assert {
        str(path): found for path, tree in trees.items() if (found := drawing & roots(imported(path, tree.body)))
    } == {}


@pytest.mark.parametrize("room", ["loop", "recipes", "runs", "models"])
def test_no_tensorflow_where_any_backend_trains(room):
    assert {path for path in files(f"training/{room}") if "tensorflow" in roots(imported(path))} == set()


def test_import_is_light():
    # Counted from what Keras itself imports: matplotlib and scikit-learn, where it finds them.
    code = "import sys, keras; before = {*sys.modules}; import keras_cnv2; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = roots(run.stdout.split())
    assert "keras_cnv2" in loaded
    heavy = {"tensorflow_datasets", "matplotlib", "keras_cv", "keras_hub", "torch", "sklearn", "tqdm"}
    heavy |= {"huggingface_hub", "safetensors"}  # light, but not everywhere, and only where weights are read
    assert loaded & (heavy | {"training", "weights", "tests", "benchmarks"}) == set()
