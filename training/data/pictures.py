"""What sources of stored pictures share, whatever their labels are."""

import keras

from keras_cnv2.images.pictures import READING

from ..errors import DataError
from .faults import Faults
from .loader import Loader


class PictureSource:
    """A `training.data.source.Source` of stored pictures, without the methods that depend on the kind of labels.

    Args:
        rows: `training.data.file_rows.FileRows` or `training.data.tfds_rows.TfdsRows`, the stored pictures and labels.
        class_names: Tuple of strings, or `None` for pictures without labels.
        max_unreadable: Largest share of all pictures that may be unreadable; ten are always allowed.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.

    Attributes:
        loader: `training.data.loader.Loader` of the rows.
        faults: `training.data.faults.Faults` of the pictures.
    """

    channels = 3
    taken = {}

    def __init__(self, rows, class_names, max_unreadable=0.01, reading=READING):
        if keras.backend.backend() != "tensorflow":
            raise DataError(
                "Folders and TensorFlow Datasets need Keras's TensorFlow backend; on others, train on arrays in an "
                f".npz file. Received: the backend {keras.backend.backend()}"
            )
        self.rows = rows
        self.size, self.validation_size = rows.size, rows.validation_size
        self.class_names = class_names
        self.reading = reading
        self.faults = Faults(self.size + self.validation_size, max_unreadable)
        self.loader = Loader(rows, reading, self.faults)

    def look(self, memory=None):
        """As in `Source`: reads the headers of all files, if pictures are files."""
        self.faults.leave_out(self.rows.unreadable(self.reading.max_pixels, memory))

    def clear_errors(self):
        """As in `Source`."""
        return self.faults.clear_errors()
