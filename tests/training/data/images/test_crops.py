import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.data.samples import photo, write
from training.data.draws import Draws
from training.data.images import augment
from training.data.images.crops import random_crop


class TestCrop:
    """Against PIL's resize of the same box."""

    def crop(self, contents, size=16, area=(0.3, 1.0)):
        return random_crop(contents, size, area, False, Draws(3, 4)).numpy()

    def expected(self, contents, size=16, area=(0.3, 1.0), grid=1):
        image = Image.open(io.BytesIO(contents)).convert("RGB")
        box = augment.sample_crop(image.height, image.width, area, Draws(3, 4))
        top, left, height, width = (int(number) // grid * grid for number in box)
        return np.asarray(image.crop((left, top, left + width, top + height)).resize((size, size), Image.BICUBIC))

    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("a.jpg", "RGB", {"quality": 95}),
            ("a.jpg", "L", {}),
            ("a.png", "RGB", {}),
            ("a.png", "RGBA", {}),
            ("a.png", "L", {}),
            ("a.png", "P", {}),
            ("a.bmp", "RGB", {}),
            ("a.gif", "RGB", {}),
            ("a.webp", "RGB", {"lossless": True}),
        ],
    )
    def test_kinds_of_pictures(self, tmp_path, name, mode, options):
        contents = write(tmp_path / name, 1, mode, **options).read_bytes()
        difference = np.abs(self.crop(contents) - self.expected(contents))
        assert difference.mean() < 1

    def test_sixteen_bits(self, tmp_path):
        levels = photo(1)[..., 0]
        contents = {}
        for name, values in (("wide", levels.astype("uint16") * 257), ("narrow", levels)):
            Image.fromarray(values).save(tmp_path / f"{name}.png")
            contents[name] = (tmp_path / f"{name}.png").read_bytes()
        assert np.abs(self.crop(contents["wide"]) - self.expected(contents["narrow"])).mean() < 1

    def test_cmyk(self, tmp_path):
        """Decoded in part as decoded in whole; PIL and TensorFlow differ about CMYK itself."""
        contents = write(tmp_path / "a.jpg", 1, "CMYK").read_bytes()
        pixels = tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE").numpy()
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        assert np.abs(self.crop(contents) - self.expected(png.getvalue())).mean() < 1

    def test_large_pictures_are_decoded_at_a_part_of_their_size(self, tmp_path):
        picture = Image.fromarray(photo(2)).resize((1200, 900), Image.BICUBIC)
        picture.save(tmp_path / "a.jpg", quality=95)
        contents = (tmp_path / "a.jpg").read_bytes()
        # Decoded at a quarter, the box begins and ends at a whole quarter pixel.
        difference = np.abs(self.crop(contents, 32, (0.3, 0.5)) - self.expected(contents, 32, (0.3, 0.5), grid=4))
        assert difference.mean() < 1

    def test_decoded_at_twice_the_size_at_least(self, tmp_path, monkeypatch):
        Image.fromarray(photo(2)).resize((1200, 900), Image.BICUBIC).save(tmp_path / "a.jpg")
        contents, decode, ratios = (tmp_path / "a.jpg").read_bytes(), tf.image.decode_and_crop_jpeg, []

        def decode_and_crop_jpeg(*args, ratio, **kwargs):
            ratios.append(ratio)
            return decode(*args, ratio=ratio, **kwargs)

        monkeypatch.setattr(tf.image, "decode_and_crop_jpeg", decode_and_crop_jpeg)
        shortest = min(map(int, augment.sample_crop(900, 1200, (0.3, 0.5), Draws(3, 4))[2:]))
        sizes = [shortest // (2 * ratio) for ratio in (8, 4, 2, 1)] + [shortest // 4 + 1, shortest // 2 + 1]
        for size in sizes:
            self.crop(contents, size, (0.3, 0.5))
        assert ratios == [8, 4, 2, 1, 1, 1]

    def test_flip(self, tmp_path):
        contents = write(tmp_path / "a.png").read_bytes()
        images = [random_crop(contents, 16, (1.0, 1.0), True, Draws(0, key)).numpy() for key in range(20)]
        plain = random_crop(contents, 16, (1.0, 1.0), False, Draws(0, 0)).numpy()
        plain = [np.abs(image - plain).max() < 1e-3 for image in images]
        mirrored = [np.abs(image[:, ::-1] - images[plain.index(True)]).max() < 1e-3 for image in images]
        assert 3 < sum(plain) < 17
        assert [not is_plain for is_plain in plain] == mirrored
