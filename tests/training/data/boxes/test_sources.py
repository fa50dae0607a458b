import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture
from tests.training.data.boxes.small import (
    NAMES,
    add_masks,
    mask_of,
    objects_of,
    picture,
    recipe,
    write_coco,
    write_labelled,
    write_voc,
    write_xml,
    write_yolo,
)
from tests.training.data.samples import take
from training.data.boxes.folders import CocoFolder, LabelledFolder, VocFolder, YoloFolder
from training.data.boxes.masks import decode
from training.data.boxes.sources import open_boxes
from training.data.boxes.tfds import TfdsBoxes
from training.data.shares import Share
from training.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_pictures")

# As far as they go: all that is random.
JITTER = {"scale": (0.5, 2.0), "flip": True}


def assert_same(ones, twos):
    keras.tree.assert_same_structure(ones, twos)
    keras.tree.map_structure(np.testing.assert_array_equal, ones, twos)


def put_together(parts):
    """The batches of all workers from those of each."""
    return [keras.tree.map_structure(lambda *columns: np.concatenate(columns), *batch) for batch in zip(*parts)]


def number_of(image):
    """Which picture an image shows, as it is."""
    (number,) = (n for n in range(12) if np.abs(image[:30] - picture(objects_of(n))).max() < 0.01)
    return number


def padded(objects, count=4):
    """Boxes and classes as a batch has them."""
    boxes, classes = np.full((count, 4), -1.0), np.full(count, -1.0)
    for n, (name, box) in enumerate(objects):
        boxes[n], classes[n] = box, NAMES.index(name)
    return boxes, classes


@pytest.fixture
def voc(tmp_path):
    """Eight training pictures and three of validation.

    The first object of picture 1 and both of picture 9 are difficult, picture 2 has none.
    """
    write_voc(tmp_path, 8, 3)
    write_xml(tmp_path / "Annotations" / "p1.xml", objects_of(1), difficult=(0,))
    write_xml(tmp_path / "Annotations" / "p2.xml", [])
    write_xml(tmp_path / "Annotations" / "p9.xml", objects_of(9), difficult=(0, 1))
    return tmp_path


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Eight training pictures and three of validation, with masks. The second object of picture 9 is a crowd."""

    def change(content):
        add_masks(content)
        content["annotations"][2]["iscrowd"] = 1

    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, "train2017", range(8), change=add_masks)
    return write_coco(folder, "val2017", (8, 9, 10), change=change)


def counted(number):
    """The objects that count in a picture of `voc`."""
    return {1: objects_of(1)[1:], 2: [], 9: []}.get(number, objects_of(number))


class TestTraining:
    def test_batches(self, voc):
        """Each picture comes with its own boxes, without difficult ones, once in a pass; also one without boxes."""
        source = VocFolder(voc)
        assert (source.size, source.validation_size, source.class_names) == (8, 3, NAMES)
        batches = source.training(recipe())
        images, labels = batches.element_spec
        assert images.shape == (4, 40, 40, 3)
        assert {name: (tuple(spec.shape), spec.dtype.name) for name, spec in labels.items()} == {
            "boxes": ((4, 4, 4), "float32"),
            "classes": ((4, 4), "float32"),
        }
        order = []
        for images, labels in take(batches, 4):
            for image, boxes, classes in zip(images, labels["boxes"], labels["classes"]):
                order.append(number_of(image))
                expected = padded(counted(order[-1]))
                np.testing.assert_allclose(boxes, expected[0], atol=1e-4)
                np.testing.assert_array_equal(classes, expected[1])
        assert sorted(order[:8]) == sorted(order[8:]) == [*range(8)]
        assert order[:8] != order[8:]

    def test_annotations_of_another_size(self, voc):
        """As after pictures were made smaller: their boxes are wrong, not unreadable."""
        write_xml(voc / "Annotations" / "p3.xml", objects_of(3), width=80, height=60)
        source = VocFolder(voc, max_unreadable=1.0)
        message = r"size of their picture, 40 x 30\. Received: 80 x 60 for .*p3\.png"
        with pytest.raises(DataError, match=message), source.clear_errors():
            take(source.training(recipe()), 2)

    def test_goes_on_from_any_batch_in_the_share_of_a_worker(self, coco):
        """As if never interrupted: its part is the second half of one worker's batches."""
        told = recipe(masks=True, **JITTER)
        whole = take(CocoFolder(coco, masks=True).training(told), 5)
        half = take(CocoFolder(coco, masks=True).training(told, 3, share=Share(1, 2)), 2)
        assert_same(half, keras.tree.map_structure(lambda column: column[2:], whole[3:]))
        assert not np.array_equal(whole[0][0], whole[2][0])

    def test_too_many_boxes(self, voc):
        with pytest.raises(DataError, match=r"max_boxes must be at least 2, .*Received: max_boxes=1"):
            VocFolder(voc).training(recipe(max_boxes=1))

    def test_missing_and_damaged_pictures(self, voc, caplog):
        (voc / "JPEGImages" / "p2.png").unlink()
        (voc / "JPEGImages" / "p5.png").write_bytes(b"no picture")
        batches = take(VocFolder(voc, max_unreadable=0.2).training(recipe()), 2)
        assert not {number_of(image) for images, _ in batches for image in images} & {2, 5}
        messages = [record.getMessage() for record in caplog.records if record.name == "training.data.faults"]
        assert sorted(messages) == [
            f"Left out, as it cannot be read: {voc / 'JPEGImages' / name}" for name in ("p2.jpg", "p5.png")
        ]


class TestValidation:
    def test_every_picture_once(self, voc):
        """Also by the shares of workers. Empty places have no boxes and the weight 0."""
        source = VocFolder(voc)
        halves = [take(source.validation(recipe(image_size=20), 4, Share(n, 2))) for n in range(2)]
        ((images, labels, weights),) = put_together(halves)
        assert images.shape == (4, 20, 20, 3)
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        for number, image, boxes, classes in zip((8, 9, 10), images, labels["boxes"], labels["classes"]):
            np.testing.assert_array_equal(image, fit_picture(picture(objects_of(number)), 20)[0])
            expected_boxes, expected_classes = padded(counted(number))
            np.testing.assert_array_equal(boxes, np.where(expected_boxes < 0, -1, expected_boxes / 2))
            np.testing.assert_array_equal(classes, expected_classes)
        assert not images[3].any()
        assert (labels["boxes"][3] == -1).all()
        assert (labels["classes"][3] == -1).all()

    def test_none(self, tmp_path):
        source = VocFolder(write_voc(tmp_path, 3), validation_share=0.0)
        assert source.validation(recipe(), 4) is None

    @pytest.mark.slow
    def test_evaluation(self, tmp_path):
        """In the pictures' own pixels, with all objects."""

        def change(content):
            content["annotations"][1]["iscrowd"] = 1

        write_coco(tmp_path, "train2017", range(2))
        source = CocoFolder(write_coco(tmp_path, "val2017", (5, 6, 7), change=change))
        columns = zip(*take(source.evaluation(recipe(image_size=20, max_boxes=1), 2)))
        images, scales, sides, truths, weights = (np.concatenate(column) for column in columns)
        assert images.shape == (4, 20, 20, 3)
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        np.testing.assert_array_equal(scales[:3], [0.5] * 3)
        np.testing.assert_array_equal(sides[:3], [[30, 40]] * 3)
        for number, string in zip((5, 6, 7), truths):
            boxes, classes, crowd, areas, masks = source.truth(string)
            assert masks is None
            np.testing.assert_array_equal(boxes, [box for _, box in objects_of(number)])
            assert [NAMES[c] for c in classes] == [name for name, _ in objects_of(number)]
            assert crowd.tolist() == [False, number == 5][: len(boxes)]
            np.testing.assert_array_equal(areas, 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))

    def test_examples(self, voc):
        source = VocFolder(voc)
        images, labels = source.examples(recipe(), 3)
        numbers = [number_of(image) for image in images]
        assert sorted(numbers) == [8, 9, 10]
        boxes, classes = map(np.stack, zip(*(padded(counted(number)) for number in numbers)))
        assert_same(labels, {"boxes": boxes, "classes": classes})


def masks_of(objects, count=4):
    """Masks as a batch of pictures as they are has them."""
    masks = np.zeros((count, 40, 40), "uint8")
    for plane, (_, box) in zip(masks, objects):
        plane[:30] = mask_of(box)
    return masks


class TestMasks:
    def test_training(self, coco):
        source = CocoFolder(coco, masks=True)
        batches = source.training(recipe(masks=True))
        spec = batches.element_spec[1]["masks"]
        assert (tuple(spec.shape), spec.dtype.name) == ((4, 4, 40, 40), "uint8")
        for images, labels in take(batches, 2):
            for image, masks in zip(images, labels["masks"]):
                np.testing.assert_array_equal(masks, masks_of(objects_of(number_of(image))))

    def test_whole_pictures(self, coco):
        """In validation and examples, resized like the picture; what fills up a batch has none."""
        source = CocoFolder(coco, masks=True)
        objects = [objects_of(number)[:1] for number in (8, 9, 10)]  # the crowd of picture 9 is not trained on
        expected = [masks_of(each) for each in [*objects, []]]
        ((_, labels, _),) = take(source.validation(recipe(masks=True, image_size=20), 4))
        np.testing.assert_array_equal(labels["masks"], np.array(expected)[:, :, 1::2, 1::2])
        _, labels = source.examples(recipe(masks=True), 3)
        # In an order of their own.
        assert sorted(each.tobytes() for each in labels["masks"]) == sorted(each.tobytes() for each in expected[:3])

    def test_evaluation(self, coco):
        """In the picture's own pixels, also of crowds."""
        source = CocoFolder(coco, masks=True)
        ((*_, truths, _),) = take(source.evaluation(recipe(masks=True, image_size=20), 3))
        for number, string in zip((8, 9, 10), truths):
            *_, masks = source.truth(string)
            expected = np.stack([mask_of(box) for _, box in objects_of(number)])
            np.testing.assert_array_equal(decode(masks, 30, 40), expected)

    def test_only_if_the_recipe_wants_them(self, coco):
        source = CocoFolder(coco, masks=True)
        assert {*source.training(recipe()).element_spec[1]} == {"boxes", "classes"}
        assert not open_boxes(recipe(data=str(coco))).has_masks
        assert open_boxes(recipe(data=str(coco), masks=True)).has_masks

    @pytest.mark.parametrize("use", ["training", "validation", "evaluation", "examples"])
    def test_data_without(self, voc, use):
        source = VocFolder(voc)
        arguments = [] if use == "training" else [2]
        with pytest.raises(DataError, match=r"mask_rcnn needs masks .* --head faster_rcnn. Received: data without"):
            getattr(source, use)(recipe(masks=True), *arguments)
        with pytest.raises(DataError, match="mask_rcnn needs masks"):
            open_boxes(recipe(data=str(voc), masks=True))


class TestOpen:
    def test_kinds_of_folders(self, tmp_path):
        """The same pictures in all layouts have the same boxes, and the same masks where a layout has masks."""
        write_voc(tmp_path / "voc", 4)
        write_coco(tmp_path / "coco", "train2017", range(4))
        write_yolo(tmp_path / "yolo", range(4))
        write_labelled(tmp_path / "labelled", range(4))
        kinds = {"voc": VocFolder, "coco": CocoFolder, "yolo": YoloFolder, "labelled": LabelledFolder}
        for name, kind in kinds.items():
            told = recipe(data=str(tmp_path / name), validation_share=0.25)
            source = open_boxes(told)
            assert type(source) is kind
            assert (source.size, source.validation_size, source.class_names) == (3, 1, NAMES)
            assert not source.has_masks
        for name in ("yolo", "labelled"):
            source = open_boxes(recipe(data=str(tmp_path / name), masks=True, validation_share=0.0))
            for number in range(4):
                row = tf.constant([number], tf.int64)
                _, _, boxes, classes, _, areas, masks = source.rows.open(row, tf.constant(0, tf.int64))
                # Labels of a picture may be in any order.
                found = sorted(zip(classes.numpy(), boxes.numpy().tolist(), areas.numpy(), masks.numpy()))
                expected = sorted((NAMES.index(own), box) for own, box in objects_of(number))
                for (label, own, area, mask), (right_label, (left, top, right, bottom)) in zip(found, expected):
                    assert label == right_label
                    np.testing.assert_allclose(own, (left, top, right, bottom), atol=1e-4)
                    pixels = np.zeros((30, 40))
                    pixels[top:bottom, left:right] = 1
                    np.testing.assert_array_equal(decode([mask], 30, 40)[0], pixels)
                    assert area == pixels.sum()
                assert len(found) == len(expected)

    def test_yaml_file(self, tmp_path):
        file = write_yolo(tmp_path, range(4)) / "data.yaml"
        assert type(open_boxes(recipe(data=str(file)))) is YoloFolder

    def test_several_layouts(self, tmp_path):
        """The path of data.yaml says which one is meant."""
        write_yolo(write_coco(tmp_path, "train2017", range(4)), range(4))
        with pytest.raises(
            DataError, match=r"has the layouts of COCO \(.*\) and of YOLO \(data\.yaml\): .*Received: data="
        ):
            open_boxes(recipe(data=str(tmp_path)))
        assert type(open_boxes(recipe(data=str(tmp_path / "data.yaml")))) is YoloFolder

    @pytest.mark.parametrize("data", [None, "nowhere"])
    def test_others(self, data):
        with pytest.raises(DataError, match=rf"layout of Pascal VOC.*COCO.*YOLO.*labelled PNGs.*Received: data={data}"):
            open_boxes(recipe(data=data))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set of TensorFlow Datasets, with features like COCO's."""
    import tensorflow_datasets as tfds

    class SmallBoxes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            objects = {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=NAMES),
                "is_crowd": np.bool_,
                "area": np.int64,
                "segmentation": tfds.features.Image(shape=(None, None, 1)),
            }
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "objects": tfds.features.Sequence(objects),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(range(8)), "validation": self._generate_examples(range(8, 12))}

        def _generate_examples(self, numbers):
            for number in numbers:
                objects = [
                    {
                        "bbox": tfds.features.BBox(top / 30, left / 40, bottom / 30, right / 40),
                        "label": name,
                        "is_crowd": number == 9 and place == 0,
                        "area": 50 + number,
                        # Any value is the object.
                        "segmentation": (7 + 99 * place)
                        * mask_of((left, top, right, bottom))[..., None].astype("uint8"),
                    }
                    for place, (name, (left, top, right, bottom)) in enumerate(objects_of(number))
                ]
                if number == 11:
                    objects.append({**objects[0], "bbox": tfds.features.BBox(0.5, 0.25, 0.5, 0.75)})  # no height
                yield number, {"image": picture(objects_of(number)), "objects": objects if number != 10 else []}

    folder = tmp_path_factory.mktemp("tfds")
    SmallBoxes(data_dir=folder).download_and_prepare()
    return folder


class TestTfds:
    @pytest.mark.slow
    def test_training(self, prepared):
        source = TfdsBoxes("small_boxes", data_dir=prepared)
        assert (source.size, source.validation_size, source.class_names) == (8, 4, NAMES)
        seen = set()
        for images, labels in take(source.training(recipe()), 2):
            for image, boxes, classes in zip(images, labels["boxes"], labels["classes"]):
                seen.add(number_of(image))
                expected = padded(objects_of(number_of(image)))
                np.testing.assert_allclose(boxes, expected[0], atol=1e-4)
                np.testing.assert_array_equal(classes, expected[1])
        assert seen == {*range(8)}

    def test_evaluation(self, prepared, caplog):
        """The first object of one picture is a crowd, another picture has none, one has a box without area."""
        source = TfdsBoxes("small_boxes", data_dir=prepared)
        batches = source.evaluation(recipe(), 5)
        ((images, *_, truths, weights),) = take(batches)
        np.testing.assert_array_equal(weights, [1, 1, 1, 1, 0])
        order = [number_of(image) for image in images[:4]]
        assert sorted(order) == [8, 9, 10, 11]
        for number, string in zip(order, truths):
            boxes, classes, crowd, areas, masks = source.truth(string)
            assert masks is None
            expected = objects_of(number) if number != 10 else []
            np.testing.assert_allclose(boxes, np.reshape([box for _, box in expected], (-1, 4)), atol=1e-4)
            assert [NAMES[c] for c in classes] == [name for name, _ in expected]
            assert crowd.tolist() == [number == 9 and place == 0 for place in range(len(expected))]
            assert areas.tolist() == [50 + number] * len(expected)
        take(batches)  # once, however often they are read
        (message,) = [record.getMessage() for record in caplog.records if record.name == "training.data.boxes.tfds"]
        assert message.endswith(": 1 objects outside of their picture or without area left out")

    def test_masks(self, prepared):
        source = TfdsBoxes("small_boxes", data_dir=prepared, masks=True)
        assert source.has_masks
        ((images, *_, truths, _),) = take(source.evaluation(recipe(masks=True), 4))
        for image, string in zip(images, truths):
            *_, masks = source.truth(string)
            expected = [mask_of(box) for _, box in objects_of(number_of(image))] if len(masks) else []
            np.testing.assert_array_equal(decode(masks, 30, 40), np.reshape(expected, (-1, 30, 40)))
        assert not TfdsBoxes("small_boxes", data_dir=prepared).has_masks

    def test_masks_of_another_size(self, prepared):
        source = TfdsBoxes("small_boxes", data_dir=prepared, masks=True)
        masks = tf.stack([tf.io.encode_png(np.ones((*sides, 1), "uint8")) for sides in ((30, 40), (40, 30))])
        message = r"Masks must have the size of their picture, 40 x 30\. Received: 30 x 40 for train/7"
        with pytest.raises(DataError, match=message), source.clear_errors():
            tf.function(source._encoded, autograph=False)(masks, tf.constant([30, 40]), tf.constant("train/7"))

    def test_too_many_boxes(self, prepared, caplog):
        """Which shows when they are read; it is not that the picture cannot be read."""
        source = TfdsBoxes("small_boxes", data_dir=prepared, max_unreadable=1.0)
        with pytest.raises(DataError, match=r"max_boxes must be at least 2, "), source.clear_errors():
            take(source.validation(recipe(max_boxes=1), 4))
        assert not [record for record in caplog.records if record.name == "training.data.faults"]

    @pytest.mark.slow
    def test_without_objects(self, tmp_path):
        """Said before anything is downloaded."""
        with pytest.raises(DataError, match="mnist has no objects with bbox and label"):
            TfdsBoxes("mnist", data_dir=tmp_path)
