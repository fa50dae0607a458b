import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.images.classes import imagenet_classes
from tests.training.small import finetuning, source
from training.drawing.runs import predictions
from training.evaluation.predictions import best_and_worst

NAMES = ("class 0", "class 1", "class 2")


class Told(keras_cnv2.ConvNeXtV2):
    """A classifier that says what it is told: of an image whose first value is i, row i of a table."""

    def __call__(self, images, training):
        assert not training
        return keras.ops.take(self.table, keras.ops.cast(images[:, 0, 0, 0], "int32"), axis=0)


def told(table, class_names=NAMES):
    table = np.asarray(table, "float32")
    classifier = Told((1, 1, 1, 1), (4, 4, 4, 4), classes=table.shape[1], class_names=class_names)
    classifier.table = table
    return classifier


def numbered(test=11):
    data = source(test=test)
    data.test.images[:, 0, 0, 0] = np.arange(test)
    return data


def table():
    """Images 0, 1, 2, ... have the classes 0, 1, 2, 0, ...; 0 to 5 are right, ever less sure, the others wrong."""
    rows = np.full((11, 3), 0.0)
    for number in range(11):
        predicted = number % 3 if number < 6 else (number + 1) % 3
        rows[number] = 0.01 + 0.01 * number
        rows[number, predicted] = 1 - 2 * rows[number, 0]
    return rows


def places(predictions):
    return [int(prediction.image[0, 0, 0]) for prediction in predictions]


@pytest.mark.parametrize("batch_size", [4, 11])
def test_surest_of_each_kind(batch_size):
    found = best_and_worst(told(table()), numbered(), finetuning(), batch_size, kept=4)
    assert [*found] == ["correct, most confident", "wrong, most confident"]
    right, wrong = found.values()
    assert places(right) == [0, 1, 2, 3]
    assert places(wrong) == [6, 7, 8, 9]
    assert [(p.label, p.predicted) for p in wrong[:2]] == [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[2])]
    np.testing.assert_allclose([p.probability for p in right], [0.98, 0.96, 0.94, 0.92])


@pytest.mark.parametrize("batch_size", [4, 11])
def test_right_ones_are_of_all_classes(batch_size):
    data = numbered()
    data.test.labels[:] = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    rows = np.full((11, 3), 0.01)
    rows[range(11), data.test.labels] = np.linspace(0.98, 0.5, 11)
    right = best_and_worst(told(rows), data, finetuning(), batch_size, kept=5)["correct, most confident"]
    assert places(right) == [0, 5, 8, 1, 6]


def test_only_so_many_are_seen():
    found = best_and_worst(told(table()), numbered(), finetuning(), batch_size=4, seen=5)
    seen = [place for entries in found.values() for place in places(entries)]
    assert len({*seen}) == len(seen) == 8
    assert max(seen) > 7  # from all of them: folders are sorted by class


def test_nothing_wrong():
    assert [*best_and_worst(told(table()), numbered(5), finetuning(), 4)] == ["correct, most confident"]


def test_a_classifier_of_more_classes():
    """And in another order."""
    classifier = told(np.roll(np.pad(table(), ((0, 0), (0, 1))), 1, axis=-1), ("other", *NAMES))
    classifier.table[0] = (0.9, 0.05, 0.03, 0.02)
    wrong = best_and_worst(classifier, numbered(), finetuning(), 4)["wrong, most confident"]
    assert [(p.label, p.predicted) for p in wrong[:2]] == [(NAMES[0], "other"), (NAMES[0], NAMES[1])]


def test_a_classifier_without_names():
    """Its thousand classes are ImageNet's, also those that the data do not have."""
    data = numbered()
    data.class_names = imagenet_classes()[:3]
    classifier = told(np.pad(table(), ((0, 0), (0, 997))), None)
    classifier.table[0, 5] = 1
    wrong = best_and_worst(classifier, data, finetuning(), 4)["wrong, most confident"]
    assert (wrong[0].label, wrong[0].predicted) == (imagenet_classes()[0], imagenet_classes()[5])


@pytest.mark.backends
def test_of_a_model(tmp_path):
    model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 6, 8, 10), classes=3, class_names=NAMES, stem_stride=1)
    data = source()
    found = best_and_worst(model, data, finetuning(), 4)
    expected = model.predict(data.test.images.astype("float32"), verbose=0)
    right = expected.argmax(-1) == data.test.labels
    assert sum(map(len, found.values())) == min(8, right.sum()) + min(8, (~right).sum())
    sure = np.sort(expected.max(-1)[~right])[::-1][:8]
    np.testing.assert_allclose([p.probability for p in found.get("wrong, most confident", ())], sure, atol=1e-5)
    predictions(tmp_path / "predictions.png", found)
    assert (tmp_path / "predictions.png").stat().st_size > 10_000
