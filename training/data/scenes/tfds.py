"""Data source for TensorFlow Datasets with class maps."""

from ...errors import DataError
from ..tfds_rows import TfdsRows, open_pictures, tensorflow_datasets
from .class_names import counted_names, given_names
from .task import Scenes

# Names of the features in TensorFlow Datasets that hold class maps.
LABEL_FEATURES = ("annotation", "segmentation_mask", "segmentation_label", "mask")


class TfdsScenes(Scenes):
    """A data set of TensorFlow Datasets with a feature "image", and one of PNGs with the class number of each pixel.

    The latter is called "annotation", "segmentation_mask", "segmentation_label" or "mask". For the splits see
    `training.data.tfds_rows.TfdsRows`.

    Args:
        name, data_dir: See `training.data.tfds_rows.open_pictures`.
        classes: As in `training.data.scenes.folders.SceneFolder`. `None`: the data set's own names, else counted from
            the greatest number in the labels.
        ignore_label, reduce_zero_label, validation_share: As in `SceneFolder`.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks a feature or split.
    """

    def __init__(
        self,
        name,
        data_dir=None,
        classes=None,
        ignore_label=255,
        reduce_zero_label=False,
        validation_share=0.1,
        shuffle_buffer=2_000,
        **options,
    ):
        tfds = tensorflow_datasets()

        if name.split("/")[0].split(":")[0] == "scene_parse150":
            raise DataError(
                "scene_parse150 of TensorFlow Datasets has the instances of 100 classes (Places Challenge 2017), not "
                "ADE20K's 150 classes of pixels. Give the folder ADEChallengeData2016. Received: tfds:scene_parse150"
            )
        builder, known = open_pictures(name, data_dir)
        kept = next((key for key in LABEL_FEATURES if isinstance(known.get(key), tfds.features.Image)), None)
        if kept is None:
            raise DataError(f"{name} has no class maps ({', '.join(LABEL_FEATURES)}). Received: a data set of {known}")

        def open_row(row):
            return row["image"], row[kept], row["tfds_id"]

        rows = TfdsRows(builder, name, {"image", kept}, open_row, validation_share, shuffle_buffer)
        names = given_names(classes) or given_names(getattr(known[kept], "names", None))
        if names is None:
            labels = rows.everything().map(lambda row: row[kept])
            names = counted_names(labels, ignore_label, reduce_zero_label, name)
        super().__init__(rows, names, ignore_label, reduce_zero_label, **options)
