import os

import numpy as np
import pytest
from PIL import Image

from keras_cnv2.images.pictures import Reading
from tests.training.data.boxes.small import HEIGHT, WIDTH, save
from training.data.boxes import yolo
from training.data.boxes.masks import decode
from training.data.boxes.yolo import label_file, read_yolo
from training.errors import DataError

BOX = "0 0.5 0.5 0.25 0.2"  # in a picture of 40 x 30: 15, 12, 25, 18
TRIANGLE = "1 0.25 0.2 0.5 0.2 0.25 0.6"  # 10, 6; 20, 6; 10, 18


def write(folder, labels, split="train"):
    """Pictures with these lines of labels, `None` for a picture without a file of labels."""
    for name, lines in labels.items():
        save(folder / "images" / split / f"{name}.png", [])
        if lines is not None:
            file = folder / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(lines)
    return folder


def write_yaml(folder, text="train: images/train\nval: images/val\nnames: [cat, dog]\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path):
    """Two pictures for training, one for validation."""
    write(tmp_path, {"a": f"{BOX}\n\n{TRIANGLE}\n", "b": BOX})
    return write_yaml(write(tmp_path, {"c": TRIANGLE}, "val"))


def names_of(examples):
    return [os.path.basename(example.path) for example in examples]


class TestObjects:
    def test_boxes_and_polygons(self, data):
        """The box of a polygon is that of its corners."""
        train, validation, names = read_yolo(data)
        assert names == ("cat", "dog")
        assert (names_of(train), names_of(validation)) == (["a.png", "b.png"], ["c.png"])
        example = train[0]
        assert (example.width, example.height) == (WIDTH, HEIGHT)
        assert example.id == os.path.join("images", "train", "a.png")
        np.testing.assert_allclose(example.boxes, [[15, 12, 25, 18], [10, 6, 20, 18]], rtol=1e-6)
        assert example.boxes.dtype == "float32"
        assert example.classes.tolist() == [0, 1]
        assert example.crowd.tolist() == [False, False]
        np.testing.assert_allclose(example.areas, [60, 120], rtol=1e-6)
        assert example.masks is None

    def test_masks(self, tmp_path):
        """Half of the triangle's box, in pixels; areas are those of masks."""
        write(tmp_path, {"a": f"{TRIANGLE}\n0 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5", "b": ""})
        full, empty = read_yolo(
            write_yaml(tmp_path, "train: images/train\nnames: [cat, dog]"), validation_share=0.0, masks=True
        ).train
        triangle, rectangle = decode(full.masks, HEIGHT, WIDTH)
        expected = np.zeros((HEIGHT, WIDTH), "uint8")
        expected[3:15, 4:12] = 1
        np.testing.assert_array_equal(rectangle, expected)
        rows, columns = np.nonzero(triangle)
        # Below the diagonal from 20, 6 to 10, 18, but for pixels that it crosses.
        assert ((columns - 10) / 10 + (rows - 6) / 12 <= 1).all()
        assert abs(len(rows) - 60) <= 8
        np.testing.assert_array_equal(full.areas, [len(rows), 96])
        assert empty.masks == []

    def test_pictures_without_objects(self, tmp_path, caplog):
        """Without a file of labels, or with an empty one."""
        write_yaml(write(tmp_path, {"a": BOX, "b": None, "c": "", "d": "\n \n"}), "train: images/train\nnames: [cat]")
        train = read_yolo(tmp_path, validation_share=0.0).train
        assert [len(example.boxes) for example in train] == [1, 0, 0, 0]
        assert "3 pictures without boxes" in caplog.text

    def test_boxes_at_the_border(self, tmp_path, caplog):
        """Clipped, within rounding without a word; what is outside is left out."""
        lines = ["0 0.01 0.5 0.03 0.2", "0 0.1 0.5 0.4 0.2", "0 1.5 0.5 0.2 0.2", "0 0.5 0.5 0 0.2"]
        write_yaml(write(tmp_path, {"a": "\n".join(lines)}), "train: images/train\nnames: [cat]")
        (example,) = read_yolo(tmp_path, validation_share=0.0).train
        np.testing.assert_allclose(example.boxes, [[0, 12, 1, 18], [0, 12, 12, 18]], atol=1e-5)
        assert "1 boxes clipped at the border of their picture" in caplog.text
        assert "1 boxes without area left out, 1 boxes outside of their picture left out" in caplog.text

    @pytest.mark.parametrize("exif", [True, False])
    def test_shares_are_of_the_upright_picture(self, tmp_path, exif):
        write_yaml(write(tmp_path, {"a": BOX}), "train: images/train\nnames: [cat]")
        tags = Image.Exif()
        tags[0x112] = 6
        save(tmp_path / "images" / "train" / "a.png", [], exif=tags)
        (example,) = read_yolo(tmp_path, validation_share=0.0, reading=Reading(exif_orientation=exif)).train
        width, height = (HEIGHT, WIDTH) if exif else (WIDTH, HEIGHT)
        assert (example.width, example.height) == (width, height)
        expected = np.array([0.375, 0.4, 0.625, 0.6]) * [width, height, width, height]
        np.testing.assert_allclose(example.boxes, [expected], rtol=1e-6)

    def test_picture_that_cannot_be_read(self, data):
        """It is reported when pictures are looked at, like those of other layouts."""
        (data / "images" / "train" / "b.png").write_text("no picture")
        assert [len(example.boxes) for example in read_yolo(data).train] == [2, 0]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("0 0.5 0.5 0.2", r"must be followed by the 4 numbers of a box, .* there are 3"),
            ("0 0.5 0.5 0.2 0.2 0.9", "there are 5"),
            ("0 0.1 0.1 0.5 0.1 0.1 0.5 0.3", "there are 7"),
            ("0", "there are 0"),
            ("0 0.5 0.5 wide 0.2", "'wide' is not a number"),
            ("cat 0.5 0.5 0.2 0.2", "'cat' is not a number"),
            ("0 nan 0.5 0.2 0.2", "nan is not a finite number"),
            ("0 0.5 0.5 0.2 inf", "inf is not a finite number"),
            ("2 0.5 0.5 0.2 0.2", "its class must be a whole number from 0 to 1, it is 2"),
            ("-1 0.5 0.5 0.2 0.2", "its class must be .* it is -1"),
            ("0.5 0.5 0.5 0.2 0.2", "its class must be .* it is 0.5"),
            ("0 20 15 10 6", "must be shares of the width and height of the picture, not pixels"),
            ("0 0.5 0.5 -0.2 0.2", "width and height must not be negative, they are -0.2 and 0.2"),
        ],
    )
    def test_faulty_lines(self, data, line, reason):
        (data / "labels" / "train" / "b.txt").write_text(f"{BOX}\n{line}\n")
        with pytest.raises(DataError, match=rf"Line 2 is no label of YOLO: .*{reason}.*Received: .*train.b\.txt"):
            read_yolo(data)

    def test_masks_of_boxes(self, data):
        message = r"Line 1 .*it is a box, but the head mask_rcnn needs polygons.*faster_rcnn\. Received: .*a\.txt"
        with pytest.raises(DataError, match=message):
            read_yolo(data, masks=True)

    def test_outlines_that_would_take_all_memory(self, data):
        (data / "labels" / "train" / "a.txt").write_text("0" + " 0 0 1 1" * 80_000)
        message = r"A polygon is no mask: the outline of a mask must be at most .*Received: .*labels.train.a\.txt"
        with pytest.raises(DataError, match=message):
            read_yolo(data, masks=True)

    def test_files_that_are_no_text(self, data, monkeypatch):
        (data / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DataError, match=r"not a label file of YOLO: .*Received: .*b\.txt"):
            read_yolo(data)
        monkeypatch.setattr(yolo, "MAX_LABELS", 10)
        with pytest.raises(DataError, match=r"larger than 10 bytes\. Received: .*a\.txt"):
            read_yolo(data)


class TestLabelFile:
    @pytest.mark.parametrize(
        ("picture", "expected"),
        [
            ("/d/images/a.jpg", "/d/labels/a.txt"),
            ("/images/d/images/train/a.b.jpg", "/images/d/labels/train/a.b.txt"),
            ("/d/train/images/x/a.jpg", "/d/train/labels/x/a.txt"),
            ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
            ("/d/images.jpg", "/d/images.txt"),
            ("/d/images2/a.jpg", "/d/images2/a.txt"),
        ],
    )
    def test_last_folder_is_replaced(self, picture, expected):
        assert label_file(picture) == expected


class TestYaml:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ("names: [cat, dog]", ("cat", "dog")),
            ("names: {1: dog, 0: cat}\nnc: 2", ("cat", "dog")),
            ("names:\n  0: no\n  1: 7\n", ("no", "7")),
            ("names: ['größe', 'a: b']", ("größe", "a: b")),
            ("nc: 3", ("class 0", "class 1", "class 2")),
        ],
    )
    def test_names(self, data, names, expected):
        write_yaml(data, f"train: images/train\nval: images/val\n{names}\n")
        assert read_yolo(data).class_names == expected

    @pytest.mark.parametrize(
        "text",
        [
            "train: images/train",
            "path: .\ntrain: images/train",
            "path: nowhere/here\ntrain: images/train",  # as written on another machine
            "path: {folder}\ntrain: images/train",
            "path: images\ntrain: train",
            "train: ../images/train",  # as Roboflow writes it
            "train: {folder}/images/train",
            "train: [images/train/a.png.txt, images/train]",
            "train: lists/train.txt",
        ],
    )
    def test_places(self, data, text):
        """Of the folder train; lists are relative to themselves or to the data."""
        (data / "lists").mkdir()
        (data / "lists" / "train.txt").write_text("../images/train/a.png\n\nimages/train/b.png\nimages/train/b.png\n")
        (data / "images" / "train" / "a.png.txt").write_text("./a.png\n")
        write_yaml(data, text.format(folder=data) + "\nval: images/val\nnames: [cat, dog]")
        train, validation, _ = read_yolo(data)
        assert [len(example.boxes) for example in train] == [2, 1]
        assert (names_of(train), names_of(validation)) == (["a.png", "b.png"], ["c.png"])

    @pytest.mark.parametrize("val", ["", "val:\n", "val: ~\n"])
    def test_share_is_held_out(self, tmp_path, val):
        write(tmp_path, {f"p{number}": BOX for number in range(8)})
        write_yaml(tmp_path, f"train: images/train\n{val}names: [cat]")
        train, validation, _ = read_yolo(tmp_path, validation_share=0.25)
        assert (len(train), len(validation)) == (6, 2)
        assert sorted(names_of(train + validation)) == [f"p{number}.png" for number in range(8)]
        assert names_of(read_yolo(tmp_path, validation_share=0.25).validation) == names_of(validation)
        others = {tuple(names_of(read_yolo(tmp_path, 0.25, seed).validation)) for seed in range(5)}
        assert len(others) > 1

    def test_a_file_of_another_name(self, data):
        (data / "data.yaml").rename(data / "pets.yaml")
        assert len(read_yolo(data / "pets.yaml").train) == 2
        with pytest.raises(DataError, match=r"There is no file data\.yaml in this folder"):
            read_yolo(data)

    def test_the_same_pictures_in_both_splits(self, data, caplog):
        """As in coco128 of YOLO's authors."""
        write_yaml(data, "train: images/train\nval: images/train\nnames: [cat, dog]")
        assert len(read_yolo(data).validation) == 2
        assert "2 pictures are both in train and in val" in caplog.text

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("val: images/val\nnames: [cat]", "train must be a folder or a list of pictures, and it has none"),
            ("train: nowhere\nnames: [cat]", r"train must be an existing folder .*Received: nowhere in"),
            ("train: images\nval: nowhere\nnames: [cat]", r"val must be an existing folder"),
            ("train: {a: b}\nnames: [cat]", "train and path must be paths"),
            ('train: "\\ud800"\nnames: [cat]', "train and path must be paths"),
            pytest.param(f"train: {'a' * 5000}\nnames: [cat]", "train must be an existing folder", id="path"),
            ("train: images\npath: [a]\nnames: [cat]", "train and path must be paths"),
            ("train: images", "names must be a list of classes"),
            ("train: images\nnames: cat", "names must be a list of classes"),
            ("train: images\nnames: [[cat]]", "names must be a list of classes"),
            ("train: images\nnames: []", "names must be a list of classes"),
            ('train: images\nnames: ["\\ud800"]', "names must be a list of classes"),
            pytest.param("train: images\nnc: " + "1" * 5000, "names must be a list of classes", id="nc"),
            ("train: images\nnc: 0", "names must be a list of classes"),
            ("train: images\nnames: {1: cat}", r"must number the classes from 0 on, .*Received: .* with 1"),
            ("train: images\nnames: [cat, cat]", "classes must have different names"),
            ("train: images\nnames: [cat]\nnc: 2", r"nc must be the number of names, 1\. Received: nc: 2"),
            ("train: images\nnames: [cat]\nkpt_shape: [17, 3]", r"poses \(kpt_shape\)"),
            ("- a\n- b", "it has no keys train and names"),
            ("", "it has no keys train and names"),
            ("train: [", "This is not a data.yaml of YOLO"),
            ("a: &a [x, x]\nb: [*a, *a]", r"it has aliases \(\*\)"),
            ("[" * 2000, "This is not a data.yaml of YOLO"),
            ("train: !!python/object/apply:os.system [echo]\nnames: [cat]", "train must be an existing folder"),
        ],
    )
    def test_faults(self, data, text, reason):
        with pytest.raises(DataError, match=reason):
            read_yolo(write_yaml(data, text))

    def test_too_large(self, data, monkeypatch):
        monkeypatch.setattr(yolo, "MAX_YAML", 10)
        with pytest.raises(DataError, match=r"larger than 10 bytes\. Received: .*data\.yaml"):
            read_yolo(data)

    def test_no_labels_at_all(self, tmp_path):
        write_yaml(write(tmp_path, {"a": None, "b": None}), "train: images/train\nnames: [cat]")
        message = r"No picture has a file of labels; that of .*a\.png would be .*labels.train.a\.txt\. Received: "
        with pytest.raises(DataError, match=message):
            read_yolo(tmp_path)

    def test_no_pictures(self, tmp_path):
        (tmp_path / "images" / "train").mkdir(parents=True)
        with pytest.raises(DataError, match="train must be a folder or a list of pictures, and it has none"):
            read_yolo(write_yaml(tmp_path, "train: images/train\nnames: [cat]"))
