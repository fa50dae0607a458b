"""The part of `export_saved_model` for detectors."""

from keras_cnv2.arguments import positive_int
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.predict import class_names_of, image_size_for
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.outputs import check_input_dtype, one_line_each
from keras_cnv2.files import new_folder


def export_detector(model, path, *, image_size, input_dtype, reading, fold, overwrite, class_names):
    """Writes a `Detector`, or a RetinaNet with the default `Detector`, as a SavedModel.

    Args:
        reading: `keras_cnv2.images.pictures.Reading`, how `serve_jpeg` reads files.
        model, path, image_size, input_dtype, fold, overwrite, class_names: See `export_saved_model`.
    """
    from keras_cnv2.export.saved_model.check_detector import check_export
    from keras_cnv2.export.saved_model.detector import served_module
    from keras_cnv2.export.saved_model.graphs import write

    detector = model if isinstance(model, Detector) else Detector(model)
    size = image_size_for(detector.retinanet, image_size)
    positive_int("max_pixels", reading.max_pixels)
    check_input_dtype(detector.retinanet, input_dtype)
    names = [*one_line_each(class_names_of(detector.retinanet, class_names))]
    with new_folder(path, overwrite) as folder:
        module, signatures = served_module(
            detector,
            size=size,
            class_names=names,
            input_dtype=input_dtype,
            reading=reading,
            folded=fold,
            scratch=folder.parent,
        )
        write(folder, module, signatures, exported_metadata(detector.retinanet, (size, size), labels=names))
        check_export(folder, detector, size, names)
