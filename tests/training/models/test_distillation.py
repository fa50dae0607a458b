import keras
import numpy as np
import pytest
from keras import ops

from tests.training.runs_in_parts import StopAt
from tests.training.small import finetuning, source
from training.data.images.augment import Augmentation
from training.loop import state
from training.loop.train import train
from training.models.build import described_classifier, new_classifier, with_softmax
from training.models.distillation import DistillationLoss, Student, Teacher

pytestmark = [pytest.mark.backends, pytest.mark.lowest]

# Eager steps save the time to trace them; tests/training/commands/test_teacher.py has graphs.
EAGER = {"run_eagerly": keras.backend.backend() == "tensorflow"}

LABELS = np.float32([[0.9, 0.05, 0.05], [0, 1, 0], [0, 0.3, 0.7]])
THEIRS = np.float32([[2, 0, -1], [0.5, 3, 1], [-2, 1, 2]])
OURS = np.float32([[1, 1, 0], [0, 0.5, -1], [3, -1, 0]])


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def expected(share, temperature):
    label_loss = -(LABELS * np.log(softmax(OURS))).sum(-1)
    theirs, ours = softmax(THEIRS / temperature), softmax(OURS / temperature)
    teacher_loss = temperature**2 * (theirs * np.log(theirs / ours)).sum(-1)
    return {
        "loss": (1 - share) * label_loss + share * teacher_loss,
        "label_loss": label_loss,
        "teacher_loss": teacher_loss,
    }


class TestDistillationLoss:
    @pytest.mark.parametrize(("share", "temperature"), [(0.5, 3.0), (0.9, 1.0), (0, 2.0), (1, 4.0)])
    def test_formula(self, share, temperature):
        loss = DistillationLoss(share, temperature)
        parts = expected(share, temperature)
        for name, values in loss.parts((LABELS, THEIRS), OURS).items():
            np.testing.assert_allclose(ops.convert_to_numpy(values), parts[name], rtol=1e-5, atol=1e-6)
        weights = np.float32([1, 0, 2])
        total = loss((LABELS, THEIRS), OURS, weights)
        # As any loss of Keras: weights multiply, and padding counts in the number of samples.
        assert float(total) == pytest.approx((parts["loss"] * weights).sum() / 3, rel=1e-5)

    def test_as_in_keras(self):
        if not hasattr(keras, "distillation"):
            pytest.skip("this Keras has no distillation")
        # Named by a string, Keras 3.15 computes the divergence of the logits instead of the probabilities.
        distillation = keras.distillation.LogitsDistillation(3.0, keras.losses.KLDivergence())
        theirs = distillation.compute_loss(THEIRS, OURS)
        assert float(DistillationLoss(1, 3.0)((LABELS, THEIRS), OURS)) == pytest.approx(float(theirs), rel=1e-4)

    def test_finite_for_confident_teachers(self):
        certain = np.float32([[0, -200, -200]] * 3)
        assert np.isfinite(float(DistillationLoss(0.5, 1.0)((LABELS, certain), OURS)))


class TestTeacher:
    def test_logits_of_probabilities(self):
        teacher = Teacher(lambda images: np.float32([[0.5, 0.5, 0], [0.1, 0.2, 0.7]]), True, range(3))
        logits = ops.convert_to_numpy(teacher(np.zeros((2, 4, 4, 3))))
        np.testing.assert_allclose(softmax(logits), [[0.5, 0.5, 0], [0.1, 0.2, 0.7]], atol=1e-6)
        assert np.isfinite(logits).all()

    def test_order_of_the_classes(self):
        teacher = Teacher(lambda images: THEIRS, False, [2, 0, 1])
        np.testing.assert_array_equal(ops.convert_to_numpy(teacher(np.zeros((3, 4, 4, 3)))), THEIRS[:, [2, 0, 1]])

    @pytest.mark.parametrize(("sides", "shape"), [((None, None), (6, 4)), ((8, None), (8, 4)), ((3, 2), (3, 2))])
    def test_size(self, sides, shape):
        seen = []
        teacher = Teacher(lambda images: seen.append(images) or images[:, 0, 0], False, range(3), sides)
        teacher(np.full((2, 6, 4, 3), 7, "uint8"))
        assert tuple(seen[0].shape) == (2, *shape, 3)
        np.testing.assert_allclose(ops.convert_to_numpy(seen[0]), 7, rtol=1e-6)


def other_model():
    """A classifier that is neither the student nor the same in all classes."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Rescaling(1 / 30, -4), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((None, None, 3)), *layers])


def teacher_of(model):
    return Teacher(lambda images: model(images, training=False), False, range(3))


def finetune(folder, teacher=None, callbacks=(), **fields):
    """Two epochs of two steps, which make one step of the optimizer."""
    fixed = {"accumulation": 2, "drop_path": 0.2, "ema": 0.5, "checkpoint_steps": 2, "deterministic": False}
    recipe = finetuning(**fixed, teacher="x" if teacher else None, **fields)
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    model = new_classifier(recipe, 3, source().class_names, teacher=teacher)
    augmentation = Augmentation(3, label_smoothing=0.1, mixup=0.8)
    loss = {"loss": keras.losses.CategoricalCrossentropy(from_logits=True)} if teacher is None else {}
    arguments = {"monitor": "val_accuracy", "metrics": lambda: ["accuracy"], "described": described_classifier(model)}
    return model, train(model, recipe, source(8), folder, augmentation, callbacks, **arguments, **loss, **EAGER)


def arrays(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The run of a student, its teacher, and the weights of the teacher before."""
    folder, model = tmp_path_factory.mktemp("taught"), other_model()
    before = arrays(model)
    return (*finetune(folder, teacher_of(model), teacher_share=0.7), folder, model, before)


class TestStudent:
    def test_teacher_is_not_part_of_it(self, taught):
        student, _, folder, teacher, before = taught
        plain = new_classifier(finetuning(drop_path=0.2), 3, source().class_names)
        assert isinstance(student, Student)
        assert [v.shape for v in student.variables] == [v.shape for v in plain.variables]
        assert len(state.read(state.checkpoints(folder / "checkpoints")[4])[0]) == len(state.variables(student))
        for one, two in zip(arrays(teacher), before):
            np.testing.assert_array_equal(one, two)

    def test_is_saved_as_a_classifier_of_the_library(self, taught):
        student, *_ = taught
        named = {"module", "class_name", "registered_name"}
        plain = new_classifier(finetuning(), 3, source().class_names)
        mine, others = described_classifier(student), described_classifier(plain)
        assert {name: mine[name] for name in named} == {name: others[name] for name in named}
        assert mine["registered_name"] == "keras_cnv2>ConvNeXtV2"
        assert type(with_softmax(student, finetuning())) is type(plain)

    def test_parts_are_logged(self, taught):
        student, progress, _, teacher, _ = taught
        row = progress.history[-1]
        for prefix in ("", "val_"):
            parts = 0.3 * row[f"{prefix}label_loss"] + 0.7 * row[f"{prefix}teacher_loss"]
            assert row[f"{prefix}loss"] == pytest.approx(parts, rel=1e-5)
        # The last batch of validation is padded; the model has the averages that were validated.
        test = source(8).test
        logits, theirs = student.predict(test.images, verbose=0), teacher.predict(test.images, verbose=0)
        losses = DistillationLoss(0.7, 3.0).parts((np.eye(3, dtype="float32")[test.labels], theirs), logits)
        for name, values in losses.items():
            assert row[f"val_{name}"] == pytest.approx(float(ops.convert_to_numpy(values).mean()), rel=1e-4)


def test_resumed_run_ends_as_the_undisturbed_one(taught, tmp_path):
    """With accumulation, averages and drop path; after the checkpoint of step 2 it makes a step that is lost."""
    whole, progress, _, teacher, _ = taught
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path, teacher_of(teacher), [StopAt(3)], teacher_share=0.7)
    assert [*state.checkpoints(tmp_path / "checkpoints")] == [2]
    parts, again = finetune(tmp_path, teacher_of(teacher), teacher_share=0.7)
    for one, two in zip(arrays(whole), arrays(parts)):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    for name in ("loss", "teacher_loss", "val_label_loss"):
        assert again.history[1][name] == pytest.approx(progress.history[1][name], rel=1e-5)


def steps(model, count, **loss):
    """Trains a model on the same batch; returns the logs of the last step."""
    model.compile(keras.optimizers.SGD(0.05), metrics=["accuracy"], **loss, **EAGER)
    batch = source(12).train
    targets = np.eye(3, dtype="float32")[batch.labels] * 0.9 + 0.1 / 3
    for _ in range(count):
        logs = model.train_on_batch(batch.images, targets, return_dict=True)
    return logs


def test_without_a_share_the_numbers_are_those_of_a_training_without_teacher():
    def model(teacher=None):
        named = {"teacher": "x", "teacher_share": 0.0} if teacher else {}
        keras.utils.set_random_seed(0)
        return new_classifier(finetuning(drop_path=0.2, **named), 3, source().class_names, teacher=teacher)

    alone = model()
    expected = steps(alone, 2, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    student = model(teacher_of(other_model()))
    logs = steps(student, 2)
    for name, value in expected.items():
        assert float(logs[name]) == pytest.approx(float(value), rel=1e-6)
    for one, two in zip(arrays(alone), arrays(student)):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)


def test_student_of_the_teacher_alone_comes_closer_to_it():
    fields = {"teacher": "x", "teacher_share": 1.0, "temperature": 2.0}
    student = new_classifier(finetuning(**fields), 3, source().class_names, teacher=teacher_of(other_model()))
    first = steps(student, 1)
    last = steps(student, 4)
    assert last["teacher_loss"] < 0.8 * first["teacher_loss"]
