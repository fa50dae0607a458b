import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.export.litert.representative import as_dtype, batches_of
from tests.export.litert.litert_files import SIZE, images
from tests.export.small import classifier, encoded, shared_classifier


@pytest.fixture(scope="module")
def model():
    return classifier(image_size=SIZE, resize="squash", head_init_scale=1.0)


class TestRepresentative:
    def test_pictures(self, model, tmp_path):
        (tmp_path / "it.png").write_bytes(encoded("PNG"))
        (batch,) = batches_of([tmp_path / "it.png"], model, (1, SIZE, SIZE, 3))
        np.testing.assert_array_equal(batch[0], keras_cnv2.load_image(tmp_path / "it.png", SIZE, "squash"))
        (batch,) = batches_of([tmp_path / "it.png"], model, (1, SIZE, SIZE, 3), resize="crop")
        np.testing.assert_array_equal(batch[0], keras_cnv2.load_image(tmp_path / "it.png", SIZE, "crop"))

    def test_pictures_for_normalised_images(self, tmp_path):
        (tmp_path / "it.png").write_bytes(encoded("PNG"))
        model = shared_classifier(include_preprocessing=False)
        (batch,) = batches_of([str(tmp_path / "it.png")], model, (1, 32, 32, 3))
        image = keras_cnv2.load_image(tmp_path / "it.png", 32)
        np.testing.assert_allclose(batch[0], keras_cnv2.preprocess_input(image), atol=1e-6)

    @pytest.mark.parametrize("arrange", [np.asarray, list, lambda all_: [all_[:3], all_[3], all_[4:]], iter])
    def test_arrangements(self, model, arrange):
        given = images(5).astype("uint8")
        received = np.concatenate(batches_of(arrange(given), model, (2, SIZE, SIZE, 3)))
        np.testing.assert_array_equal(received, np.concatenate([given, given[:1]]))
        assert received.dtype == "float32"

    @pytest.mark.parametrize(("given", "batch", "batches"), [(1, 3, 1), (5, 3, 2), (4, 2, 2), (2, 5, 1)])
    def test_the_last_batch_is_filled_up(self, model, given, batch, batches):
        given = images(given)
        received = batches_of(given, model, (batch, SIZE, SIZE, 3))
        assert len(received) == batches
        expected = np.resize(given, (batches * batch, *given.shape[1:]))  # which repeats
        np.testing.assert_array_equal(np.concatenate(received), expected)

    @pytest.mark.parametrize(
        ("representative", "message"),
        [([], "Received: none"), ("photos", "an iterable of paths"), (images(2, 32, 32), r"shape \(32, 32, 3\)")],
    )
    def test_errors(self, model, representative, message):
        with pytest.raises(ValueError, match=message):
            batches_of(representative, model, (1, SIZE, SIZE, 3))

    def test_pictures_for_images_that_are_not_square(self, model):
        with pytest.raises(ValueError, match="give arrays, not paths"):
            batches_of(["it.png"], model, (1, SIZE, 96, 3))


def test_images_of_whole_numbers():
    given = np.float32([-3, 0.4, 0.6, 254.7, 300])
    assert as_dtype(given, "uint8").tolist() == [0, 0, 1, 255, 255]
    assert as_dtype(given, "uint8").dtype == "uint8"
    np.testing.assert_array_equal(as_dtype(given, "float32"), given)
