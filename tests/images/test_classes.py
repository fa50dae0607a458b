from importlib import resources

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.images.classes import decode_predictions, imagenet_classes

PROBABILITIES = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], "float32")
NAMES = ["a", "b", "c"]


def only_names(predictions):
    return [[name for name, probability in row] for row in predictions]


class TestImageNetClasses:
    def test_table_is_package_data(self):
        table = resources.files("keras_cnv2.images").joinpath("imagenet_classes.tsv").read_text("utf-8")
        rows = [line.split("\t") for line in table.splitlines()]
        assert [int(index) for index, _, _ in rows] == [*range(1000)]
        # The order of the published weights is that of WordNet's numbers.
        numbers = [number for _, number, _ in rows]
        assert numbers == sorted({*numbers})
        assert imagenet_classes() == tuple(name for _, _, name in rows)

    def test_names(self):
        names = imagenet_classes()
        assert len(names) == 1000
        assert all(name and name == name.strip() for name in names)
        known = {0: "tench", 207: "golden retriever", 281: "tabby", 999: "toilet tissue"}
        assert {index: names[index] for index in known} == known


class TestDecodePredictions:
    def test_is_public(self):
        assert keras_cnv2.decode_predictions is decode_predictions

    @pytest.mark.backends
    @pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor])
    def test_imagenet_by_default(self, convert):
        probabilities = np.zeros((2, 1000), "float32")
        probabilities[0, [281, 0]] = 0.75, 0.25
        probabilities[1, 999] = 1
        first, second = decode_predictions(convert(probabilities))
        assert first == [("tabby", 0.75), *[(imagenet_classes()[i], v) for i, v in ((0, 0.25), (1, 0), (2, 0), (3, 0))]]
        assert second[0] == ("toilet tissue", 1)
        assert len(second) == 5

    @pytest.mark.backends
    @pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor])
    def test_class_names(self, convert):
        expected = [[("b", np.float32(0.6)), ("c", np.float32(0.3))], [("a", 0.5), ("c", np.float32(0.3))]]
        predictions = decode_predictions(convert(PROBABILITIES), top=2, class_names=NAMES)
        assert predictions == expected
        assert {type(probability) for row in predictions for _, probability in row} == {float}

    @pytest.mark.backends
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, dtype):
        probabilities = keras.ops.cast(PROBABILITIES, dtype)
        assert only_names(decode_predictions(probabilities, class_names=NAMES)) == [["b", "c", "a"], ["a", "c", "b"]]

    @pytest.mark.parametrize("top", [0, -1, 1.5])
    def test_impossible_top(self, top):
        with pytest.raises(ValueError, match=f"top must be a positive int. Received: top={top}"):
            decode_predictions(PROBABILITIES, top, NAMES)

    @pytest.mark.parametrize("top", [3, 4, 1000])
    def test_at_most_all(self, top):
        predictions = decode_predictions(PROBABILITIES, top, tuple(NAMES))
        assert only_names(predictions) == [["b", "c", "a"], ["a", "c", "b"]]

    def test_ties_in_the_order_of_the_classes(self):
        # More than sixteen: shorter rows NumPy sorts stably by any method.
        names = [f"class {index}" for index in range(40)]
        probabilities = np.tile([1 / 60, 2 / 60], 20)[None]
        assert only_names(decode_predictions(probabilities, 40, names)) == [names[1::2] + names[::2]]

    @pytest.mark.backends
    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.01, 1.01, 42])
    def test_numbers_that_are_no_probabilities(self, wrong):
        probabilities = PROBABILITIES.copy()
        probabilities[1, 2] = wrong
        for activation in ("softmax", "sigmoid"):
            with pytest.raises(ValueError, match=r"numbers in 0\.\.1.*Received: 1 others, such as"):
                decode_predictions(probabilities, 2, NAMES, activation)

    def test_rows_that_do_not_add_up(self):
        nearly = PROBABILITIES + np.float32([0.009, 0, 0])
        assert only_names(decode_predictions(nearly, 1, NAMES)) == [["b"], ["a"]]
        with pytest.raises(ValueError, match="must add up to 1.*Received: 2 rows .* with the sum 1.02"):
            decode_predictions(PROBABILITIES + np.float32([0.02, 0, 0]), 1, NAMES)
        with pytest.raises(ValueError, match="must add up to 1.*Received: 2 rows .* with the sum 0.98"):
            decode_predictions(PROBABILITIES * np.float32(0.98), 1, NAMES)
        independent = decode_predictions([[0.9, 0.8, 0.1]], 2, NAMES, activation="sigmoid")
        assert only_names(independent) == [["a", "b"]]
        assert only_names(decode_predictions([[0.2]], 1, ["a"])) == [["a"]]  # a single class has a sigmoid

    def test_impossible_activation(self):
        with pytest.raises(ValueError, match='"softmax" or "sigmoid". Received: activation=None'):
            decode_predictions(PROBABILITIES, 1, NAMES, activation=None)

    def test_no_images(self):
        assert decode_predictions(np.zeros((0, 3)), class_names=NAMES) == []

    @pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3), ()])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(N, 3\).*Received: probabilities of shape") as error:
            decode_predictions(np.zeros(shape), class_names=NAMES)
        assert str(error.value).endswith(str(shape))

    @pytest.mark.parametrize("shape", [(1000,), (2, 999), (2, 3)])
    def test_wrong_shape_for_imagenet(self, shape):
        with pytest.raises(ValueError, match=r"\(N, 1000\).*\(by default ImageNet's\).*Received") as error:
            decode_predictions(np.zeros(shape))
        assert str(error.value).endswith(str(shape))
