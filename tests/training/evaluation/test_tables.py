import pytest

from training.evaluation import tables

IMAGES = {"images": 7, "images_per_second": 3.0}
CLASSIFICATION = {"classes": {"cat": 0.5, "long name": None}, "top1": 0.5, "top5": 0.75}
SEGMENTATION = {
    "iou": {"road": 0.5, "traffic light": None},
    "mean_iou": 0.5,
    "pixel_accuracy": 0.75,
    "mean_accuracy": None,
}
DETECTION = {"classes": {"cell": 0.5, "other": None}, "AP": 0.5, "AP50": 0.75, "APS": None}


def test_classification():
    scores = CLASSIFICATION | IMAGES | {"mirrored": {"top1": 0.625, "top5": 1.0}}
    assert tables.classification(scores).splitlines() == [
        "cat           50.00%",
        "long name  no images",
        "top-1 50.00%, top-5 75.00% of 7 images, 3.0 images/s",
        "with mirror images top-1 62.50%, top-5 100.00%",
    ]
    assert tables.classification(CLASSIFICATION | IMAGES).splitlines()[-1].endswith("of 7 images, 3.0 images/s")


def test_segmentation():
    assert tables.segmentation(SEGMENTATION | IMAGES | {"mean_iou_multi_scale": 0.55}).splitlines() == [
        "road              50.00%",
        "traffic light  no pixels",
        "mean IoU 50.00%, pixel accuracy 75.00%, mean accuracy no pixels of 7 images, 3.0 images/s",
        "at several scales and mirrored: mean IoU 55.00%",
    ]


def test_detection():
    assert tables.detection(DETECTION | IMAGES).splitlines() == [
        "cell       50.00%",
        "other  no objects",
        "AP 50.00%, AP50 75.00%, APS no objects of 7 images, 3.0 images/s",
    ]


def test_detection_with_masks():
    masks = {"mask_classes": {"cell": 0.25, "other": None}, "mask_AP": 0.25, "mask_AP50": 0.5, "mask_APS": None}
    assert tables.detection(DETECTION | masks | IMAGES).splitlines() == [
        "            boxes       masks",
        "cell       50.00%      25.00%",
        "other  no objects  no objects",
        "boxes: AP 50.00%, AP50 75.00%, APS no objects",
        "masks: AP 25.00%, AP50 50.00%, APS no objects",
        "of 7 images, 3.0 images/s",
    ]


@pytest.mark.parametrize(
    ("table", "scores", "classes"),
    [
        (tables.classification, CLASSIFICATION, "classes"),
        (tables.segmentation, SEGMENTATION, "iou"),
        (tables.detection, DETECTION, "classes"),
    ],
)
class TestEach:
    def test_names_of_classes_cannot_steer_the_terminal(self, table, scores, classes):
        """They are names of folders, or come from files."""
        text = table({**scores, **IMAGES, classes: {"\x1b[2J": 0.5}})
        assert text.startswith("?[2J  50.00%\n")
        assert "\x1b" not in text

    def test_single_batch_has_no_rate(self, table, scores, classes):
        assert "of 7 images\n" in table({**scores, **IMAGES, "images_per_second": None}) + "\n"
