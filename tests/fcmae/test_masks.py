import re

import keras
import numpy as np
import pytest

from tests.fcmae.small import EAGERLY, ENCODERS, TENSORFLOW, images, numpy, scramble, shared, small
from tests.outputs import outputs


def masked(model, x, hidden):
    return outputs(model, {"images": x, "hidden": hidden})


@pytest.mark.parametrize("encoder", ENCODERS)
class TestMasks:
    @pytest.mark.backends
    def test_hidden_pixels_change_no_feature(self, encoder):
        model = shared(encoder)
        hidden = outputs(model, images())["hidden"]
        covered = np.kron(hidden, np.ones((1, 8, 8)))[..., None] == 1
        other = np.where(covered, images(seed=1), images())
        broken = np.where(covered, np.array([np.nan, np.inf, -np.inf], "float32"), images())
        one, two, three = (masked(model, x, hidden)["features"] for x in (images(), other, broken))
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
        assert (one[hidden == 1] == 0).all()
        assert (one[hidden == 0] != 0).any(-1).all()

    def test_visible_pixels_do(self, encoder):
        model = shared(encoder)
        hidden = numpy(model(images())["hidden"])
        one, two = (numpy(model(x, hidden=hidden)["features"]) for x in (images(), images(seed=1)))
        assert (one != two)[hidden == 0].mean() > 0.9

    @pytest.mark.backends
    def test_image_alone_and_in_a_batch(self, encoder):
        model = shared(encoder)
        # Very different images: statistics over the batch would show.
        x = images() * np.array([1, 0.1, 0.01, 0.5], "float32").reshape(4, 1, 1, 1)
        out = outputs(model, x)
        for i in range(4):
            alone = masked(model, x[i : i + 1], out["hidden"][i : i + 1])
            for name in ("features", "prediction"):
                np.testing.assert_allclose(alone[name][0], out[name][i], rtol=1e-4, atol=1e-4)

    @pytest.mark.backends
    def test_drawn_masks(self, encoder):
        model = shared(encoder)
        draws = [numpy(model(images(), training=True)["hidden"]) for _ in range(3)]
        assert all(((1 - hidden).sum((1, 2)) == 6).all() for hidden in draws)  # int(16 * 0.4)
        assert (draws[0] != draws[1]).any()
        assert (draws[1] != draws[2]).any()
        assert any((draws[0][0] != hidden).any() for hidden in draws[0][1:])

    @pytest.mark.backends
    def test_as_inputs_of_a_functional_model(self, encoder):
        model = scramble(small(encoder=encoder, dtype="mixed_bfloat16"))
        x = keras.Input((32, 32, 3)), keras.Input((4, 4))
        functional = keras.Model(x, model(*x))
        hidden = numpy(model(images())["hidden"])
        out, expected = functional((images(), hidden)), model(images(), hidden=hidden)
        for name, spec in functional.output.items():
            assert spec.shape == (None, *out[name].shape[1:])
            assert spec.dtype == keras.backend.standardize_dtype(out[name].dtype)
            np.testing.assert_array_equal(numpy(out[name]), numpy(expected[name]))


@pytest.mark.parametrize(
    ("encoder", "height", "width", "stem_stride", "channels", "count", "ratio"),
    [
        ("visible", 16, 48, 1, 1, 2, 0.5),
        ("dense", 64, 32, 2, 4, 3, 0.8),
        ("visible", 96, 64, 4, 3, 1, 0.2),
        ("dense", 32, 32, 1, 3, 1, 0.6),
    ],
)
def test_any_shape(encoder, height, width, stem_stride, channels, count, ratio):
    model = small((height, width), stem_stride, channels, mask_ratio=ratio, encoder=encoder)
    x, patch = images(count, height, width, channels), 8 * stem_stride
    out = model(x)
    h, w = height // patch, width // patch
    assert out["prediction"].shape == (count, h * w, patch * patch * channels)
    assert out["hidden"].shape == (count, h, w)
    assert out["features"].shape == (count, h, w, 16)
    assert model.reconstruct(x).shape == x.shape
    model.compile("sgd", **EAGERLY)
    assert np.isfinite(model.train_on_batch(x))


class TestEncodersAgree:
    @pytest.mark.backends
    def test_on_given_masks(self):
        visible, dense = map(shared, ENCODERS)
        out = dense(images())
        again = visible(images(), hidden=out["hidden"])
        for name in ("features", "prediction"):
            np.testing.assert_allclose(numpy(again[name]), numpy(out[name]), rtol=1e-4, atol=1e-4)

    def test_another_count_than_the_ratio_gives(self):
        visible, dense = map(shared, ENCODERS)
        hidden = np.zeros((4, 4, 4), "float32")
        hidden[:, 1] = 1
        one, two = (numpy(model(images(), hidden=hidden)["features"]) for model in (visible, dense))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


class TestGivenMasks:
    UNEVEN = np.array([[[0, 0], [0, 1]], [[0, 1], [1, 1]]])

    def test_dense_takes_any(self):
        model = shared("dense", 16)
        assert np.isfinite(numpy(model(images(2, 16, 16), hidden=self.UNEVEN)["prediction"])).all()

    @pytest.mark.backends
    def test_visible_wants_the_same_count(self):
        with pytest.raises(ValueError, match=r"same number of patches visible.*Received: visible patches \[3, 1\]"):
            shared(image_size=16)(images(2, 16, 16), hidden=self.UNEVEN)
        with pytest.raises(ValueError, match="at least one"):
            shared(image_size=16)(images(2, 16, 16), hidden=np.ones((2, 2, 2)))

    @pytest.mark.backends
    @pytest.mark.parametrize("encoder", ENCODERS)
    def test_values(self, encoder):
        model, even = shared(encoder), np.array([np.tile([0, 1], (4, 2))] * 4)
        for hidden, received in ((even * np.uint8(255), r"\[0.0, 255.0\]"), (np.full((4, 4, 4), 0.5), r"\[0.5\]")):
            with pytest.raises(ValueError, match=rf"1 where hidden and 0 where visible. Received: values {received}"):
                model(images(), hidden=hidden)
        for dtype in ("uint8", "bool", "float64"):
            assert np.isfinite(numpy(model(images(), hidden=even.astype(dtype))["prediction"])).all()

    @pytest.mark.skipif(not TENSORFLOW, reason="compiles with TensorFlow")
    def test_compiled_function_cannot_look_so_it_answers_nan(self):
        import tensorflow as tf

        model = small(16, mask_ratio=0.5)
        run = tf.function(lambda hidden: model(images(2, 16, 16), hidden=hidden))
        prediction = run(tf.constant(self.UNEVEN, "float32"))["prediction"]
        assert np.isnan(prediction).all()
        even = tf.constant([[[0, 1], [1, 0]], [[0, 0], [1, 1]]], "float32")
        assert np.isfinite(run(even)["prediction"]).all()

    @pytest.mark.parametrize("hidden", [np.zeros((4, 4, 3)), np.zeros((4, 32, 32)), np.zeros((4, 16))])
    def test_other_shape(self, hidden):
        with pytest.raises(ValueError, match=r"hidden must have the shape \(N, 4, 4\). Received"):
            shared()(images(), hidden=hidden)

    @pytest.mark.backends
    @pytest.mark.parametrize(
        ("keys", "call"),
        [
            (["image"], "__call__"),
            (["images", "masks"], "__call__"),
            (["hidden"], "__call__"),
            (["hidden"], "predict"),
        ],
    )
    def test_dict_with_other_keys(self, keys, call):
        # On JAX a model is of no use after a `predict` that failed.
        model = small() if call == "predict" else shared()
        error = re.escape(f'A dict must hold "images" and may hold "hidden". Received: the keys {keys}')
        with pytest.raises(ValueError, match=error):
            getattr(model, call)(dict.fromkeys(keys, images()))

    @pytest.mark.backends
    def test_lists(self):
        hidden = np.tile([[0, 1, 1, 1]], (4, 4, 1))
        with pytest.raises(ValueError, match='images must be one array.* "images" and "hidden". Received: .*list'):
            shared()([images(), hidden])
        with pytest.raises(ValueError, match="hidden must be one array or tensor.* Received: hidden of type list"):
            shared()(images(), hidden=hidden.tolist())

    def test_other_images(self):
        with pytest.raises(ValueError, match=r"images must have the shape \(N, 32, 32, 3\). Received"):
            shared()(images(2, 32, 64))
