import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.names import OFFICIAL_FCMAE
from tests import golden
from tests.fcmae.small import ENCODERS, TENSORFLOW, numpy
from tests.golden import rule


def from_reference(case, encoder):
    reference = golden.load(f"fcmae_{case}")
    model = keras_cnv2.FCMAE(
        str(reference["variant"]),
        image_size=int(reference["size"]),
        mask_ratio=float(reference["mask_ratio"]),
        norm_pix_loss=bool(reference["norm_pix"]),
        include_preprocessing=False,
        encoder=encoder,
    )
    golden.set_weights(model, reference["seed"])
    size = int(reference["size"])
    return reference, model, rule.image(int(reference["image_seed"]), len(reference["mask"]), size, size)


@pytest.mark.parametrize("encoder", ENCODERS)
class TestReference:
    @pytest.mark.skipif(not TENSORFLOW, reason="takes gradients with TensorFlow's tape")
    @pytest.mark.parametrize(
        "case",
        [
            "atto_160",
            pytest.param("nano_224", marks=pytest.mark.slow),
            pytest.param("atto_224", marks=[pytest.mark.slow, pytest.mark.release]),
            pytest.param("tiny_224", marks=[pytest.mark.slow, pytest.mark.release]),
        ],
    )
    def test_loss_features_gradients(self, encoder, case):
        import tensorflow as tf

        reference, model, x = from_reference(case, encoder)
        with tf.GradientTape() as tape:
            out = model(x, hidden=reference["mask"], training=True)
            loss = model.reconstruction_loss(x, out)
        np.testing.assert_allclose(loss, reference["loss"], rtol=1e-5)
        np.testing.assert_allclose(out["features"][..., :32], reference["features"], atol=3e-5)
        np.testing.assert_allclose(out["prediction"][..., :64], reference["pred"], atol=3e-5)
        np.testing.assert_array_equal(out["hidden"], reference["mask"])

        gradients = tape.gradient(loss, model.trainable_variables)
        names = [*keras_cnv2.state_dict(model)]
        assert {f"grad_norm/{name}" for name in names} == {n for n in reference.files if n.startswith("grad_norm/")}
        for name, variable, gradient in zip(names, model.trainable_variables, gradients):
            _, layout = OFFICIAL_FCMAE.name_of(variable.path)
            gradient = layout.to_there(gradient.numpy())
            np.testing.assert_allclose(np.linalg.norm(gradient), reference[f"grad_norm/{name}"], rtol=1e-3)
            head = reference[f"grad_head/{name}"]
            # Four single values: compared with the largest of them, as one may be almost zero.
            np.testing.assert_allclose(gradient.ravel()[:4], head, rtol=1e-3, atol=1e-3 * abs(head).max())


@pytest.mark.backends
@pytest.mark.skipif(TENSORFLOW, reason="the test above has it")
def test_loss_on_other_backends():
    """Of one encoder: there, too, both give the same (TestEncodersAgree)."""
    reference, model, x = from_reference("atto_160", "dense")
    loss = model.reconstruction_loss(x, model(x, hidden=reference["mask"]))
    np.testing.assert_allclose(numpy(loss), reference["loss"], rtol=1e-5)
