"""Members of Keras that are not public are read in one module only, so that a new version of Keras is checked there."""

import ast
from pathlib import Path

import keras
import pytest

from keras_cnv2 import keras_internals

pytestmark = pytest.mark.lowest

ROOT = Path(__file__).parents[1]

# Where private names of other packages remain, each for a reason that its module states.
ALLOWED = {
    "keras_cnv2/keras_internals.py",
    "keras_cnv2/distribute/multi_worker.py",
}

# Public in spite of their names: of named tuples, and of `os`.
PUBLIC = {"_fields", "_replace", "_asdict", "_exit", "_make"}


def private_names(path):
    """Names with one underscore in front that a file reads from objects of other classes than its own."""
    attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    read = [(ast.unparse(node.value), node.attr) for node in attributes]
    own = {name for owner, name in read if owner in ("self", "cls", "super()")}
    for owner, name in read:
        if name.startswith("_") and not name.startswith("__") and name not in own | PUBLIC:
            yield f"{owner}.{name}"


def test_private_members_of_others_are_read_in_one_module():
    found = {
        str(path.relative_to(ROOT)): names
        for package in ("keras_cnv2", "training")
        for path in (ROOT / package).rglob("*.py")
        if (names := [*private_names(path)]) and str(path.relative_to(ROOT)) not in ALLOWED
    }
    assert not found


def test_layers_calls_and_sources():
    inner = keras.Sequential([keras.layers.Dense(2, name="inner_dense")])
    images = keras.Input((3,))
    outputs = keras.layers.Dense(4, name="outer_dense")(inner(images))
    model = keras.Model(images, outputs)
    names = {layer.name for layer in keras_internals.all_layers(model)}
    assert {model.name, inner.name, "inner_dense", "outer_dense"} <= names
    assert "inner_dense" not in {layer.name for layer in keras_internals.direct_layers(model)}
    operation, node, index = keras_internals.source_of(outputs)
    assert (operation.name, node, index) == ("outer_dense", 0, 0)
    (call,) = keras_internals.calls_of(operation)
    assert call.input_tensors[0].shape == (None, 2)


def test_kernels_counters_and_averages():
    dense = keras.layers.Dense(4)
    dense.build((None, 4))
    kernel = dense.kernel
    dense.enable_lora(1)
    assert keras_internals.kernel_without_lora(dense) is kernel
    optimizer = keras.optimizers.SGD(use_ema=True, gradient_accumulation_steps=2)
    optimizer.build([kernel])
    assert int(keras_internals.micro_steps(optimizer)) == 0
    ((variable, average),) = keras_internals.averages_of(optimizer)
    assert variable is kernel
    assert average is not kernel
