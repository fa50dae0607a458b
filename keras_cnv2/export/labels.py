"""The class names that exports contain."""

from keras_cnv2.models.heads import classes_of, named_outputs
from keras_cnv2.models.pictures import class_names


def labels_of(model, names=None):
    """Returns the class names of a model's outputs: `names`, the model's own, or "class 0" and so on.

    Returns `None` if the model has no classes, or if it returns "scores" and no names are known.

    Raises:
        ValueError: If a class name has several lines, or names are given for a model that does not return one row of
            class values for each image.
    """
    if classes_of(model) is None:
        if names is not None:
            raise ValueError(f"class_names are for models that return one row of classes. Received: model={model!r}")
        return None
    given = one_line_each(names or getattr(model, "class_names", None) or ())
    if not given and "scores" in named_outputs(model):
        return None
    return class_names(model, given or None)


def one_line_each(labels):
    """Returns the labels. Raises a `ValueError` unless each is one line of text: they become the lines of a file."""
    for label in labels:
        # Lone surrogates, which Python uses for bytes that it cannot decode, are not Unicode.
        is_unicode = isinstance(label, str) and label.encode(errors="replace").decode() == label
        if not is_unicode or label.splitlines() != [label]:
            raise ValueError(f"Class names must be text of one line each, to be exported. Received: {label!r}")
    return labels
