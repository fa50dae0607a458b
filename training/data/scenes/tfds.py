"""Data source for TensorFlow Datasets with class maps."""

from keras_cnv2.images.pictures import READING

from ...errors import DataError
from ..tfds_rows import TfdsRows, check_image, features_of, open_builder, tensorflow_datasets
from .class_names import counted_names, given_names
from .task import Scenes

# Names of the features in TensorFlow Datasets that hold class maps.
LABEL_FEATURES = ("annotation", "segmentation_mask", "segmentation_label", "mask")


class TfdsScenes(TfdsRows, Scenes):
    """A data set of TensorFlow Datasets with a feature "image", and one of PNGs with the class number of each pixel.

    The latter is called "annotation", "segmentation_mask", "segmentation_label" or "mask". Uses the "train" split, and
    the validation split or else the test split; if there is neither, a share is held out. The data set is downloaded
    and prepared if necessary.

    Args:
        name: As in `tfds.builder`: "oxford_iiit_pet", "name/config:version".
        data_dir: Folder of prepared data sets; `None` for the default of TensorFlow Datasets.
        classes: As in `training.data.scenes.folders.SceneFolder`. `None`: the data set's own names, else counted from
            the greatest number in the labels.
        ignore_label, reduce_zero_label, validation_share, max_unreadable, reading: As in `SceneFolder`.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.

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
        max_unreadable=0.01,
        reading=READING,
        shuffle_buffer=2_000,
    ):
        tfds = tensorflow_datasets()

        if name.split("/")[0].split(":")[0] == "scene_parse150":
            raise DataError(
                "scene_parse150 of TensorFlow Datasets has the instances of 100 classes (Places Challenge 2017), not "
                "ADE20K's 150 classes of pixels. Give the folder ADEChallengeData2016. Received: tfds:scene_parse150"
            )
        builder = open_builder(name, data_dir)
        known = features_of(builder)
        check_image(known, name)
        kept = next((key for key in LABEL_FEATURES if isinstance(known.get(key), tfds.features.Image)), None)
        if kept is None:
            raise DataError(f"{name} has no class maps ({', '.join(LABEL_FEATURES)}). Received: a data set of {known}")
        self._label_feature = kept
        encoded = tfds.decode.SkipDecoding()
        wanted = {"image": encoded, kept: encoded}
        sizes = self._keep(builder, name, {*wanted}, wanted, validation_share, shuffle_buffer)
        names = given_names(classes) or given_names(getattr(known[kept], "names", None))
        if names is None:
            rows = self._read(split=self._training_split).concatenate(self._read(split=self._validation_split))
            names = counted_names(rows.map(lambda row: row[kept]), ignore_label, reduce_zero_label, name)
        super().__init__(*sizes, names, max_unreadable, ignore_label, reduce_zero_label, reading)

    def _open(self, rows, key):
        row = self._row(rows, key)
        return row["image"], row[self._label_feature], row["tfds_id"]
