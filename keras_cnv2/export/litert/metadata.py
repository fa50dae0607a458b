"""Metadata of a LiteRT file: TensorFlow Lite metadata, and a zip archive of two files at its end.

Source: the schema `metadata_schema.fbs` (identifier M001) of MediaPipe and TensorFlow Lite Support. The numbers of
    slots and fields below are those of the schema.
"""

import json
import zipfile

from keras_cnv2.export.litert.convert import read, write
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.models.heads import takes_pixels

# Name of the metadata buffer, by which readers find it, and file identifier of its content.
NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
PARSER = "1.0.0"

LABELS, DETAILS = "labels.txt", "keras_cnv2.json"

# Values of the schema's enums and unions.
RGB, GRAYSCALE = 1, 2
FEATURE, IMAGE = 1, 2
NORMALIZATION = 1
AXIS_LABELS = 2


def write_file(path, content, kind, shape, quantization):
    """Writes a LiteRT file with its metadata.

    Args:
        path: Path of the file.
        content: Bytes of the file without metadata.
        kind: `keras_cnv2.export.kinds.kind.Kind`, what is exported.
        shape: `(batch, H, W, C)` of its images.
        quantization: `None`, "float16", "dynamic" or "int8": the quantization of the file.
    """
    details = {
        **exported_metadata(kind),
        "image_size": list(shape[1:3]),
        "include_preprocessing": takes_pixels(kind.model),
        "quantization": quantization,
    }
    labels = details.pop("class_names", None)
    graph = _with_metadata(read(content), kind.model.name, details, has_labels=labels is not None)
    path.write_bytes(write(graph))
    with zipfile.ZipFile(path, "a") as archive:
        # `ZipInfo` has a fixed date, so that the same model gives the same file.
        archive.writestr(zipfile.ZipInfo(DETAILS), json.dumps(details))
        if labels is not None:
            archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{label}\n" for label in labels))


def _with_metadata(graph, model_name, details, has_labels):
    from ai_edge_litert import schema_py_generated as schema

    # The metadata list outputs in the order of the subgraph, which may differ from that of the signature.
    signature = graph.signatureDefs[0].outputs
    names = {tensor.tensorIndex: tensor.name.decode() for tensor in signature}
    outputs = [names[index] for index in graph.subgraphs[0].outputs]
    buffer = schema.BufferT()
    buffer.data = list(_metadata(model_name, details, outputs, has_labels))
    graph.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(graph.buffers) - 1
    graph.metadata = [*(graph.metadata or []), entry]
    return graph


def _metadata(model_name, details, outputs, has_labels):
    """Returns the bytes of the schema's ModelMetadata."""
    import flatbuffers

    tables = _Tables(flatbuffers.Builder(1024))
    described = [
        tables.table(
            7,
            {
                0: tables.text(name),
                3: tables.table(3, {0: ("Uint8", FEATURE), 1: tables.table(0, {})}),
                6: tables.list([_label_file(tables)]) if has_labels else None,
            },
        )
        for name in outputs
    ]
    subgraph = tables.table(4, {2: tables.list([_image(tables, details)]), 3: tables.list(described)})
    root = tables.table(
        8,
        {
            0: tables.text(model_name),
            1: tables.text("ConvNeXt V2, made with keras_cnv2"),
            3: tables.list([subgraph]),
            7: tables.text(PARSER),
        },
    )
    tables.builder.Finish(root, IDENTIFIER)
    return bytes(tables.builder.Output())


def _label_file(tables):
    return tables.table(
        5, {0: tables.text(LABELS), 1: tables.text("Class names, one per line."), 2: ("Int8", AXIS_LABELS)}
    )


def _image(tables, details):
    """Writes the schema's TensorMetadata of the images: their size, and how to normalise values in 0..255."""
    (height, width), channels = details["image_size"], details["channels"]
    properties = {1: tables.table(2, {0: ("Uint32", width), 1: ("Uint32", height)})}
    if channels in (1, 3):
        properties[0] = ("Int8", RGB if channels == 3 else GRAYSCALE)
    content = tables.table(3, {0: ("Uint8", IMAGE), 1: tables.table(2, properties)})
    fields = {0: tables.text("images"), 3: content}
    if "mean" in details:
        # Readers of the schema accept a single value for all channels.
        mean, std = (values[:1] if len({*values}) == 1 else values for values in (details["mean"], details["std"]))
        low, high = ([(grey - m) / s for m, s in zip(mean, std)] for grey in (0, 255))
        values = tables.table(2, {0: tables.floats(mean), 1: tables.floats(std)})
        fields[4] = tables.list([tables.table(2, {0: ("Uint8", NORMALIZATION), 1: values})])
        fields[5] = tables.table(2, {0: tables.floats(high), 1: tables.floats(low)})
    return tables.table(7, fields)


class _Tables:
    """Writes flatbuffers without generated code. The parts of a table must be written before the table."""

    def __init__(self, builder):
        self.builder = builder

    def table(self, slots, fields):
        """Writes a table with `slots` slots; `fields` is {slot: offset, (scalar type, value), or `None`}."""
        self.builder.StartObject(slots)
        for slot, value in fields.items():
            if isinstance(value, tuple):
                getattr(self.builder, f"Prepend{value[0]}Slot")(slot, value[1], 0)
            elif value is not None:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return self.builder.EndObject()

    def text(self, value):
        return self.builder.CreateString(value)

    def list(self, offsets):
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def floats(self, values):
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return self.builder.EndVector()
