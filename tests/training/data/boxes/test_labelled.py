import os

import numpy as np
import pytest
from PIL import Image

from keras_cnv2.images.pictures import Reading
from tests.training.data.boxes.small import HEIGHT, WIDTH, save
from training.data.boxes import labelled
from training.data.boxes.labelled import is_labelled, read_labelled
from training.data.boxes.masks import decode
from training.errors import DataError


def numbers(*objects):
    """The number of the object of each pixel: pairs of a number and left, top, right, bottom."""
    pixels = np.zeros((HEIGHT, WIDTH), "uint16")
    for number, (left, top, right, bottom) in objects:
        pixels[top:bottom, left:right] = number
    return pixels


ONE, TWO = (1, (3, 4, 10, 9)), (2, (8, 6, 20, 28))  # the second one covers part of the first


def save_mask(path, pixels, kind="grey"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels if kind == "16 bits" else pixels.astype("uint8"))
    if kind == "palette":
        image = image.convert("P")
        image.putdata(pixels.ravel().tolist())
    image.save(path)
    return path


def write(folder, names, pixels=None, pictures="images", masks="masks", ending=""):
    for name in names:
        save(folder / pictures / f"{name}.jpg", [])
        save_mask(folder / masks / f"{name}{ending}.png", numbers(ONE, TWO) if pixels is None else pixels)
    return folder


def read(folder, **options):
    return read_labelled(folder, **{"validation_share": 0.0, "masks": True, **options})


class TestMasks:
    @pytest.mark.parametrize("kind", ["grey", "16 bits", "palette"])
    def test_objects(self, tmp_path, kind):
        """Also with numbers above 255, and with gaps between numbers."""
        number = 300 if kind == "16 bits" else 200
        write(tmp_path, ["a"])
        save_mask(tmp_path / "masks" / "a.png", numbers(ONE, (number, TWO[1])), kind)
        (example,), validation, names = read(tmp_path)
        assert (validation, names) == ([], ("object",))
        assert (example.id, example.path) == ("a", str(tmp_path / "images" / "a.jpg"))
        assert (example.width, example.height) == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(example.boxes, [ONE[1], TWO[1]])
        assert (example.boxes.dtype, example.areas.dtype) == ("float32", "float32")
        assert example.classes.tolist() == [0, 0]
        assert example.crowd.tolist() == [False, False]
        assert example.areas.tolist() == [7 * 5 - 2 * 3, 12 * 22]
        expected = numbers(ONE, TWO)
        np.testing.assert_array_equal(decode(example.masks, HEIGHT, WIDTH), [expected == 1, expected == 2])

    def test_boxes_alone(self, tmp_path):
        (example,) = read(write(tmp_path, ["a"]), masks=False).train
        np.testing.assert_array_equal(example.boxes, [ONE[1], TWO[1]])
        assert example.masks is None

    def test_picture_without_objects(self, tmp_path):
        write(write(tmp_path, ["a"]), ["b"], numbers())
        first, second = read(tmp_path).train
        assert (len(first.boxes), second.boxes.shape, second.masks) == (2, (0, 4), [])

    def test_several_classes(self, tmp_path):
        """A picture need not have all of them; the numbers of each class are its own."""
        write(tmp_path, ["a", "b"], numbers(ONE), masks="masks/cell")
        write(tmp_path, ["b"], numbers((1, TWO[1])), masks="masks/blob")
        first, second = read(tmp_path).train
        assert read(tmp_path).class_names == ("blob", "cell")
        assert (first.classes.tolist(), second.classes.tolist()) == ([1], [0, 1])
        np.testing.assert_array_equal(second.boxes, [TWO[1], ONE[1]])
        (tmp_path / "classes.txt").write_text("cell\nrare\nblob\n")
        assert read(tmp_path).class_names == ("cell", "rare", "blob")
        assert read(tmp_path).train[1].classes.tolist() == [0, 2]

    def test_name_of_the_only_class(self, tmp_path):
        write(tmp_path, ["a"])
        (tmp_path / "classes.txt").write_text("person\n")
        assert read(tmp_path).class_names == ("person",)

    @pytest.mark.parametrize("exif", [True, False])
    def test_masks_of_turned_pictures(self, tmp_path, exif):
        """Masks of the upright picture, and masks of the picture as stored, both of which are in use."""
        tags = Image.Exif()
        tags[0x112] = 6
        save(tmp_path / "images" / "a.jpg", [], exif=tags)
        save_mask(tmp_path / "masks" / "a.png", numbers(ONE))
        assert (read(tmp_path).train[0].width, read(tmp_path).train[0].height) == (WIDTH, HEIGHT)
        save_mask(tmp_path / "masks" / "a.png", numbers(ONE).T)
        reading = Reading(exif_orientation=exif)
        if exif:
            np.testing.assert_array_equal(read(tmp_path, reading=reading).train[0].boxes, [(4, 3, 9, 10)])
        else:
            with pytest.raises(DataError, match="size of its picture"):
                read(tmp_path, reading=reading)

    def test_picture_that_cannot_be_read(self, tmp_path):
        """It is reported when pictures are looked at, like those of other layouts."""
        write(tmp_path, ["a", "b"])
        (tmp_path / "images" / "b.jpg").write_text("no picture")
        assert [len(example.boxes) for example in read(tmp_path).train] == [2, 0]


class TestSplits:
    def test_folders(self, tmp_path):
        write(write(tmp_path / "train", ["a", "b"]).parent / "valid", ["c"])
        splits = read(tmp_path)[:2]
        assert [[example.id for example in split] for split in splits] == [["a", "b"], ["c"]]

    def test_share_is_held_out(self, tmp_path):
        for folder in (tmp_path, tmp_path / "train"):
            write(folder, [f"p{number}" for number in range(8)])
            splits = read(tmp_path, validation_share=0.25)[:2]
            assert [len(split) for split in splits] == [6, 2]
            assert sorted(example.id for split in splits for example in split) == [f"p{n}" for n in range(8)]
        others = {read(tmp_path, validation_share=0.25, seed=seed).validation[0].id for seed in range(8)}
        assert len(others) > 1

    def test_penn_fudan(self, tmp_path):
        """Pedestrians: FudanPed1.png and FudanPed1_mask.png."""
        write(tmp_path, ["FudanPed1"], pictures="PNGImages", masks="PedMasks", ending="_mask")
        assert [len(example.boxes) for example in read(tmp_path).train] == [2]

    def test_recognized(self, tmp_path):
        assert not is_labelled(tmp_path / "nowhere")
        (tmp_path / "images").mkdir()
        assert not is_labelled(tmp_path)
        (tmp_path / "masks").mkdir()
        assert is_labelled(tmp_path)
        (tmp_path / "a" / "train").mkdir(parents=True)
        write(tmp_path / "a" / "train", [])
        assert not is_labelled(tmp_path / "a")
        write(tmp_path / "a" / "train", ["a"])
        assert is_labelled(tmp_path / "a")


class TestBadInput:
    def test_another_size(self, tmp_path):
        write(tmp_path, ["a"])
        save_mask(tmp_path / "masks" / "a.png", np.ones((20, 50)))
        message = r"size of its picture .*a\.jpg, 40 x 30\. Received: 50 x 20 for .*a\.png"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    def test_classes_of_other_sizes(self, tmp_path):
        """One is of the upright picture, the other one of the picture as stored."""
        tags = Image.Exif()
        tags[0x112] = 6
        save(tmp_path / "images" / "a.jpg", [], exif=tags)
        save_mask(tmp_path / "masks" / "x" / "a.png", numbers(ONE))
        save_mask(tmp_path / "masks" / "y" / "a.png", numbers(ONE).T)
        with pytest.raises(DataError, match=r"40 x 30\. Received: 30 x 40 for .*y.a\.png"):
            read(tmp_path)

    def test_colours(self, tmp_path):
        write(tmp_path, ["a"])
        save(tmp_path / "masks" / "a.png", [])
        with pytest.raises(DataError, match=r"must hold numbers of objects, .*Received: colours in .*a\.png"):
            read(tmp_path)

    def test_missing(self, tmp_path):
        write(tmp_path, ["a", "b", "c"])
        for name in "bc":
            (tmp_path / "masks" / f"{name}.png").unlink()
        message = r"2 pictures have no mask, a PNG of the same name in .*b\.jpg, .*c\.jpg\. Received: 3 pictures"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    def test_no_objects(self, tmp_path):
        with pytest.raises(DataError, match="no objects in the annotations"):
            read(write(tmp_path, ["a"], numbers()))

    def test_no_png(self, tmp_path):
        write(tmp_path, ["a"])
        (tmp_path / "masks" / "a.png").write_bytes((tmp_path / "images" / "a.jpg").read_bytes())
        with pytest.raises(DataError, match=r"A mask must be a PNG\. Received: .*a\.png"):
            read(tmp_path)

    def test_damaged(self, tmp_path):
        write(tmp_path, ["a"])
        whole = (tmp_path / "masks" / "a.png").read_bytes()
        for length in (9, 25, 60):
            (tmp_path / "masks" / "a.png").write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"This PNG of a mask is damaged\. Received: .*a\.png"):
                read(tmp_path)

    def test_pipe(self, tmp_path):
        write(tmp_path, ["a"])
        (tmp_path / "masks" / "a.png").unlink()
        os.mkfifo(tmp_path / "masks" / "a.png")
        with pytest.raises(DataError, match=r"There are no PNGs|have no mask"):
            read(tmp_path)

    def test_too_large(self, tmp_path):
        with pytest.raises(DataError, match=r"at most 1000 pixels .*Received: 40 x 30 in .*a\.png"):
            read(write(tmp_path, ["a"]), reading=Reading(max_pixels=1000))

    def test_too_many_objects(self, tmp_path, monkeypatch):
        """As in a photo or a map of depths."""
        monkeypatch.setattr(labelled, "MAX_OBJECTS", 1)
        with pytest.raises(DataError, match=r"at most 1 different ones\. Received: 2 in .*a\.png"):
            read(write(tmp_path, ["a"]))

    def test_empty_folders(self, tmp_path):
        (tmp_path / "images").mkdir()
        with pytest.raises(DataError, match="There are no folders images and masks"):
            read(tmp_path)
        (tmp_path / "masks").mkdir()
        with pytest.raises(DataError, match=r"There are no PNGs in this folder of masks\. Received: .*masks"):
            read(tmp_path)
        save_mask(tmp_path / "masks" / "a.png", numbers(ONE))
        with pytest.raises(DataError, match=r"There are no pictures below this folder\. Received: .*images"):
            read(tmp_path)

    def test_several_classes_in_one_folder(self, tmp_path):
        write(tmp_path, ["a"])
        (tmp_path / "classes.txt").write_text("cell\nblob\n")
        with pytest.raises(DataError, match=r"must lie in a folder for each, such as .*cell\. Received: PNGs in"):
            read(tmp_path)

    def test_classes_in_another_encoding(self, tmp_path):
        write(tmp_path, ["a"])
        (tmp_path / "classes.txt").write_text("Wölfe\n", encoding="latin-1")
        with pytest.raises(DataError, match=r"not a list of classes in UTF-8: .*Received: .*classes\.txt"):
            read(tmp_path)

    def test_unknown_classes(self, tmp_path):
        write(tmp_path, ["a"], masks="masks/cell")
        (tmp_path / "classes.txt").write_text("blob\n")
        with pytest.raises(DataError, match="A folder of masks has unknown classes: cell; the known ones are blob"):
            read(tmp_path)
        (tmp_path / "classes.txt").unlink()
        write(write(tmp_path / "train", ["a"], masks="masks/cell").parent / "val", ["b"], masks="masks/new")
        with pytest.raises(DataError, match="Validation has unknown classes: new; the known ones are cell"):
            read(tmp_path)
