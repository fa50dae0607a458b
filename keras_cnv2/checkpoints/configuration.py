"""What configuration files say about the weights that stand beside them, in transformers' or timm's form."""

import logging
import math
from dataclasses import dataclass, field
from numbers import Real

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.metadata import MAX_IMAGE_SIZE
from keras_cnv2.errors import CheckpointError
from keras_cnv2.images.normalization import MEAN, STD

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configuration:
    """What is claimed of weights, to be compared with their names and shapes before a model is built.

    Args:
        file: Name of the file that claims it, for messages.
        depths, dims, stem_stride: As in `keras_cnv2.ConvNeXtV2`.
        channels: Number of input channels, or `None` if it is open.
        classes: Number of classes, 0 without a head, or `None` if it is open.
        has_head: Whether there must be a head.
        metadata: See `keras_cnv2.checkpoints.metadata`; "mean" and "std" may have one value for all channels.
        licence: Licence of the weights, or `None` if it is not named.
    """

    file: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem_stride: int
    channels: int | None
    classes: int | None
    has_head: bool
    metadata: dict = field(default_factory=dict)
    licence: str | None = None

    def compare(self, found):
        """Raises a `CheckpointError` unless weights with the `Architecture` `found` are those that are described."""
        held = {
            **{name: getattr(found, name) for name in ("depths", "dims", "stem_stride", "channels")},
            "classes": found.classes or 0,
        }
        claimed = {name: getattr(self, name) for name in held}
        if found.classes is None and not self.has_head:
            claimed["classes"] = 0
        wrong = [name for name, value in claimed.items() if value not in (None, held[name])]
        if wrong:
            told = "; ".join(f"{name} {claimed[name]}, in the weights {held[name]}" for name in wrong)
            raise CheckpointError(
                f"{self.file} describes another model than these weights, nothing was loaded. Get both files from one "
                f"place, or correct it. Received: {told}"
            )

    def metadata_for(self, channels):
        """Returns the metadata of weights with a number of channels.

        If mean and deviation are of another number, they are left out and a warning says so: trainers change the
        channels and leave the values of RGB in the configuration.
        """
        own = {name: self.metadata[name] for name in ("mean", "std") if name in self.metadata}
        fitting = {name: v * channels if len(v) == 1 else v for name, v in own.items() if len(v) in (1, channels)}
        if fitting.keys() != own.keys():
            logger.warning(
                "the mean and deviation in the configuration are not for %d channels: the default ones are taken",
                channels,
            )
            fitting = {}
        return {**{name: value for name, value in self.metadata.items() if name not in own}, **fitting}


class Fields:
    """The fields of a configuration, checked one by one.

    Args:
        file: Name of the file, for messages.
        values: Dict, the content of the file.
    """

    def __init__(self, file, values):
        self.file = file
        self.values = values

    def get(self, name, default=None):
        """Returns the value of a field that is present and not null, else the default."""
        value = self.values.get(name)
        return default if value is None else value

    def fail(self, name, allowed):
        """Raises the `CheckpointError` for a field."""
        raise CheckpointError(
            f"{self.file}: {name} must be {allowed}. Received: {name}={str(self.values.get(name))[:200]!r}"
        )

    def inner(self, name):
        """Returns the fields of an object in this one; none if there is no such object."""
        values = self.get(name, {})
        if not isinstance(values, dict):
            self.fail(name, "an object")
        return Fields(self.file, values)

    def positive(self, name, default=None, most=MAX_IMAGE_SIZE):
        """Returns a positive int up to `most`, or the default."""
        value = self.get(name, default)
        if value is not None and not (is_positive_int(value) and value <= most):
            self.fail(name, f"a positive int, at most {most}")
        return value

    def number(self, name, default, is_allowed, allowed):
        """Returns a number, or the default."""
        value = self.get(name, default)
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or not is_allowed(value):
            self.fail(name, allowed)
        return value

    def flag(self, name, default):
        """Returns a bool, or the default."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            self.fail(name, "true or false")
        return value

    def four(self, name, default):
        """Returns four positive ints, one for each stage."""
        value = self.get(name, default)
        if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(is_positive_int, value)):
            self.fail(name, "four positive ints, one for each stage")
        return tuple(value)

    def one_of(self, name, allowed, default=None):
        """Returns a value of a few."""
        value = self.get(name, default)
        if not any(value == other and type(value) is type(other) for other in allowed):
            self.fail(name, f"one of {', '.join(map(str, allowed))}")
        return value

    def per_channel(self, name, is_allowed, allowed):
        """Returns a tuple of floats, one for each channel or one for all channels; or `None`."""
        values = self.get(name)
        if values is None:
            return None
        listed = values if isinstance(values, list) else [values]
        numbers = all(isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in listed)
        if not listed or not numbers or not all(map(is_allowed, listed)):
            self.fail(name, f"{allowed}, one for each channel")
        return tuple(map(float, listed))


def statistics(mean, std):
    """Returns the metadata "mean" and "std", empty for those that every model has by default."""
    own = {name: values for name, values in (("mean", mean), ("std", std)) if values is not None}
    defaults = {"mean": MEAN, "std": STD}
    same = all(len(v) == 3 and all(map(math.isclose, v, defaults[name])) for name, v in own.items())
    return {} if same else own


def without_none(**metadata):
    """Returns the entries that are known."""
    return {name: value for name, value in metadata.items() if value is not None}
