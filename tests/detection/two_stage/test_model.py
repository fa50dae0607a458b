from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.detection import Detector, Variant, mask_rcnn

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX"),
]

# Few proposals and samples, for images of 64 pixels.
NUMBERS = {"training_candidates": 60, "candidates": 60, "training_proposals": 30, "proposals": 20}
FEW = Variant(**NUMBERS, anchor_samples=32, box_samples=16)
SMALL = {"width": 8, "units": 16, "convs": 1, "variant": FEW, "seed": 0}


def backbone(**options):
    small = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "pyramid_norms": True, "input_shape": (64, 64, 3)}
    return keras_cnv2.ConvNeXtV2Backbone(**{**small, **options})


def squares(number=4):
    """Returns images with a bright square each, and their labels; the last image has none."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 60, (number, 64, 64, 3)).astype("float32")
    boxes, classes = np.zeros((number, 2, 4), "float32"), np.full((number, 2), -1)
    masks = np.zeros((number, 2, 64, 64), "uint8")
    for image in range(number - 1):
        left, top = rng.integers(0, 30, 2)
        images[image, top : top + 32, left : left + 32] += 190
        boxes[image, 0], classes[image, 0] = [left, top, left + 32, top + 32], image % 2
        masks[image, 0, top : top + 32, left : left + 32] = 1
    return images, {"boxes": boxes, "classes": classes, "masks": masks}


@pytest.mark.parametrize("scale", [8, 3.5])
def test_anchors_are_those_of_mmdetection(scale):
    """The formula of its AnchorGenerator: strides times 8, ratios of height to width, centres at their multiples."""
    model = mask_rcnn(backbone(), 2, **{**SMALL, "variant": Variant(**NUMBERS, anchor_scale=scale)})
    found = model.anchors((1, 96, 160, 3))
    for level, stride in enumerate((4, 8, 16, 32, 64)):
        expected = []
        for row in range(-(-96 // stride)):
            for column in range(-(-160 // stride)):
                for ratio in (0.5, 1.0, 2.0):
                    height, width = scale * stride * ratio**0.5, scale * stride / ratio**0.5
                    x, y = column * stride, row * stride
                    expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        np.testing.assert_allclose(found[level], expected, rtol=1e-5, atol=1e-4)


class TestTraining:
    @pytest.fixture(scope="class")
    def trained(self):
        images, labels = squares()
        model = mask_rcnn(backbone(), 2, **SMALL)
        eager = keras.backend.backend() == "tensorflow"  # tracing takes longer than eight steps
        model.compile(keras_cnv2.LayerDecayAdamW(2e-3, layer_decay=0.9), run_eagerly=eager)
        history = model.fit(images, labels, batch_size=2, epochs=4, verbose=0).history
        return model, history

    def test_all_losses_are_finite_and_fall(self, trained):
        _, history = trained
        names = {"objectness_loss", "proposal_loss", "class_loss", "box_loss", "mask_loss"}
        assert history.keys() == {"loss", *names}
        assert np.isfinite([*history.values()]).all()
        assert history["loss"][-1] < history["loss"][0]
        np.testing.assert_allclose(history["loss"], np.sum([history[name] for name in names], axis=0), rtol=1e-4)

    def test_evaluations_are_of_the_same_samples(self, trained):
        model, _ = trained
        losses = [model.evaluate(*squares(), batch_size=4, verbose=0) for _ in range(2)]
        assert losses[0] == losses[1]

    def test_keras_file(self, trained, tmp_path):
        model, _ = trained
        images, _ = squares()
        model.save(tmp_path / "model.keras")
        Detector(model, nms="linear").save(tmp_path / "detector.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        detector = keras.saving.load_model(tmp_path / "detector.keras")
        assert (again.variant, again.classes, detector.nms) == (FEW, 2, "linear")
        one, two = (numpy_of(Detector(m, nms="linear")(images)) for m in (model, again))
        for name, values in numpy_of(detector(images)).items():
            np.testing.assert_array_equal(values, one[name])
            np.testing.assert_array_equal(values, two[name])
        assert one["masks"].shape == (4, 100, 28, 28)
        assert one["count"].any()
        assert (one["masks"][one["classes"] < 0] == 0).all()

    def test_every_weight_has_a_gradient(self, trained):
        tf = pytest.importorskip("tensorflow")
        if keras.backend.backend() != "tensorflow":
            pytest.skip("TensorFlow only")
        model, _ = trained
        images, labels = squares()
        with tf.GradientTape() as tape:
            loss = model.compute_loss(images, labels, model(images, training=True))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        assert not [v.path for v, g in zip(model.trainable_variables, gradients) if g is None]
        assert all(np.isfinite(g.numpy()).all() for g in gradients)


def numpy_of(found):
    return {name: keras.ops.convert_to_numpy(values) for name, values in found.items()}


@cache
def shared():
    """A model, not trained, and its outputs of `squares`."""
    model = mask_rcnn(backbone(), 2, **SMALL)
    model.compile("sgd")
    return model, model(squares()[0])


def loss_of(labels, model=None):
    model, first = (model, model(squares()[0])) if model else shared()
    if not model.compiled:
        model.compile("sgd")
    return float(model.compute_loss(squares()[0], labels, first))


def test_images_without_objects_and_masks_without_area():
    _, labels = squares()
    nothing = {name: 0 * values - (name == "classes") for name, values in labels.items()}
    assert np.isfinite(loss_of(nothing))
    no_boxes = {"boxes": np.zeros((4, 0, 4)), "classes": np.zeros((4, 0)), "masks": np.zeros((4, 0, 64, 64))}
    np.testing.assert_allclose(loss_of(no_boxes), loss_of(nothing), rtol=1e-6)
    assert np.isfinite(loss_of({**labels, "masks": 0 * labels["masks"]}))
    flat = {**labels, "boxes": labels["boxes"][..., [0, 1, 0, 1]]}
    assert np.isfinite(loss_of(flat))


def test_padding_changes_nothing():
    _, labels = squares()
    pads = {"boxes": (0, 0), "classes": -1, "masks": 0}
    padded = {
        name: np.pad(values, ((0, 0), (0, 3), *[(0, 0)] * (values.ndim - 2)), constant_values=np.max(pads[name]))
        for name, values in labels.items()
    }
    np.testing.assert_allclose(loss_of(padded), loss_of(labels), rtol=1e-5)


def test_images_of_no_weight_do_not_count():
    model, first = shared()
    images, labels = squares()
    one = model.compute_loss(images, labels, first, sample_weight=np.float32([1, 0, 0, 0]))
    labels["boxes"][1:] += 7
    labels["classes"][1:, 0] = 1
    two = model.compute_loss(images, labels, first, sample_weight=np.float32([1, 0, 0, 0]))
    np.testing.assert_allclose(float(one), float(two), rtol=1e-6)
    for_each_label = dict.fromkeys(labels, np.float32([1, 0, 0, 0]))  # as `fit` gives them
    three = model.compute_loss(images, labels, first, sample_weight=for_each_label)
    np.testing.assert_allclose(float(one), float(three), rtol=1e-6)


def test_without_masks_it_is_faster_rcnn():
    model = mask_rcnn(backbone(), 2, masks=False, **SMALL)
    images, labels = squares()
    del labels["masks"]
    assert np.isfinite(loss_of(labels, model))
    assert "masks" not in Detector(model)(images)
    assert not [variable.path for variable in model.variables if "mask_head" in variable.path]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_half_precision_keeps_boxes_and_losses(dtype):
    """Also where the variables have half precision."""
    model = mask_rcnn(backbone(dtype=dtype), 2, **SMALL)
    images, labels = squares()
    first = model(images)
    assert keras.backend.standardize_dtype(first["levels"][0].dtype) == "bfloat16"
    for name in ("objectness", "deltas"):
        assert all(keras.backend.standardize_dtype(x.dtype) == "float32" for x in first[name])
    assert keras.backend.standardize_dtype(first["boxes"].dtype) == "float32"
    assert np.isfinite(loss_of(labels, model))


def test_masks_may_be_bool():
    _, labels = squares()
    assert loss_of({**labels, "masks": labels["masks"] == 1}) == loss_of(labels)


def test_parameters_of_the_paper_s_tiny():
    """Published for ConvNeXt V1's tiny, which has no GRN: 48 M parameters with 80 classes."""
    encoder = keras_cnv2.ConvNeXtV2Backbone("tiny", pyramid_norms=True, input_shape=(64, 64, 3))
    model = mask_rcnn(encoder, 80)
    grn = sum(np.prod(variable.shape) for variable in model.variables if "/grn/" in variable.path)
    layer_scale = sum(depth * dim for depth, dim in zip(encoder.depths, encoder.dims))  # which V1 has instead
    parameters = sum(np.prod(variable.shape) for variable in model.trainable_variables) - grn + layer_scale
    np.testing.assert_allclose(parameters, 48e6, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"variant": "detectron"},
            "variant must be a Variant, a dict of its fields, or one of mmdetection, torchvision. Received: variant=",
        ),
        ({"classes": 0}, "classes must be a positive int"),
        ({"width": 0}, "width must be a positive int"),
        ({"class_names": ["a"]}, "class_names"),
        ({"backbone": keras_cnv2.ConvNeXtV2Backbone(depths=(1,) * 4, dims=(8,) * 4, stem_stride=1)}, "levels P2 to P5"),
        ({"image_size": 50}, "image_size must be a multiple of 32"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        mask_rcnn(**{"backbone": backbone(), "classes": 2, **SMALL, **options})


def test_labels_without_masks():
    model, first = shared()
    images, labels = squares()
    with pytest.raises(ValueError, match=r"boxes, classes, masks, or .* masks=False. Received: boxes, classes"):
        model.compute_loss(images, {name: labels[name] for name in ("boxes", "classes")}, first)
    with pytest.raises(
        ValueError, match=r"the size of the images, \(64, 64\). Received: masks of shape \(4, 2, 32, 32\)"
    ):
        model.compute_loss(images, {**labels, "masks": labels["masks"][..., ::2, ::2]}, first)


def test_sides_of_images():
    model = mask_rcnn(backbone(input_shape=(None, None, 3)), 2, **SMALL)
    with pytest.raises(ValueError, match="multiples of 32"):
        model(np.zeros((1, 72, 64, 3), "float32"))


def test_images_of_two_sizes_one_after_the_other():
    detector = Detector(mask_rcnn(backbone(input_shape=(None, None, 3)), 2, masks=False, **SMALL), max_detections=3)
    for predict, size in ((detector.predict_on_batch, 32), (detector.predict, 64)):
        images = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype("float32")
        np.testing.assert_allclose(predict(images)["boxes"], detector(images)["boxes"], atol=1e-3)


@pytest.mark.parametrize(("name", "value"), [("classes", 2), ("classes", np.nan), ("boxes", np.nan)])
def test_labels_that_cannot_be_used_make_the_loss_nan(name, value):
    _, labels = squares()
    labels = {name: np.array(values, "float32") for name, values in labels.items()}
    labels[name][0, 0] = value
    assert np.isnan(loss_of(labels))
    labels["classes"][0, 0] = -1  # padding, of which the box does not count
    assert np.isfinite(loss_of(labels))


@pytest.mark.parametrize("name", ["boxes", "classes", "masks"])
def test_labels_of_other_numbers(name):
    _, labels = squares()
    with pytest.raises(ValueError, match="must be as many for each image. Received: shapes"):
        loss_of({**labels, name: labels[name][:, :1]})
    del labels[name]
    with pytest.raises(ValueError, match="must be a dict with boxes, classes, masks"):
        loss_of(labels)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("classes", lambda classes: np.eye(2)[classes]),  # one-hot
        ("boxes", lambda boxes: boxes[..., :3]),
        ("masks", lambda masks: masks[..., None]),
        ("masks", lambda masks: masks.max(axis=1)),
    ],
)
def test_labels_of_other_shapes(name, change):
    _, labels = squares()
    with pytest.raises(ValueError, match=r"must have the shape \(N, B, 4\), .* Received: shapes"):
        loss_of({**labels, name: change(labels[name])})


def test_masks_of_255_are_those_of_1():
    """Rounded to 0 or 1, as in mmdetection, and as they are, as in torchvision."""
    _, labels = squares()
    unrounded = mask_rcnn(backbone(), 2, **{**SMALL, "variant": replace(FEW, binary_masks=False)})
    for model in (None, unrounded):
        assert loss_of({**labels, "masks": 255 * labels["masks"]}, model) == loss_of(labels, model)


def test_any_number_of_objects():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("dynamic shapes are TensorFlow's")
    model = mask_rcnn(backbone(), 2, masks=False, **SMALL)
    images, labels = squares()
    model.compile("sgd")
    rows = {"boxes": tf.TensorSpec((2, None, 4)), "classes": tf.TensorSpec((2, None))}
    batches = [(images[:2], {name: labels[name][:2, :number] for name in rows}) for number in (2, 0, 1)]
    spec = (tf.TensorSpec((2, 64, 64, 3)), rows)
    history = model.fit(tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("box_samples", 3), ("anchor_samples", 1), ("proposals", 0), ("samples", 2.5), ("beta", -1), ("proposal_iou", 2)],
)
def test_variants(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* Received: {field}={value}"):
        Variant(**{field: value})
