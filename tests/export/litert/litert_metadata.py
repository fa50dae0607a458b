"""TensorFlow Lite's metadata as its readers find them."""

import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from keras_cnv2.export.litert import convert


def metadata(path):
    """What a reader of `metadata_schema.fbs` finds: of the image, and of each output."""
    graph = convert.read(path.read_bytes())
    (entry,) = [entry for entry in graph.metadata if entry.name == b"TFLITE_METADATA"]
    data = bytearray(graph.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"

    def root():
        return Table(data, number_types.UOffsetTFlags.py_type(int.from_bytes(data[:4], "little")))

    def field(table, slot):
        return table.Offset(4 + 2 * slot) + table.Pos

    def child(table, slot):
        return Table(data, table.Indirect(field(table, slot)))

    def children(table, slot):
        offset = table.Offset(4 + 2 * slot)
        start = table.Vector(offset)
        return [Table(data, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))]

    def floats(table, slot):
        offset = table.Offset(4 + 2 * slot)
        start = table.Vector(offset)
        return np.frombuffer(data[start : start + 4 * table.VectorLen(offset)], "<f4").tolist()

    def text(table, slot):
        return table.String(field(table, slot)).decode()

    (subgraph,) = children(root(), 3)
    (image,) = children(subgraph, 2)
    (unit,), stats, content = children(image, 4), child(image, 5), child(image, 3)
    assert content.Get(number_types.Uint8Flags, field(content, 0)) == 2  # ImageProperties
    size = child(child(content, 1), 1)
    yield {
        "name": text(image, 0),
        "mean": floats(child(unit, 1), 0),
        "std": floats(child(unit, 1), 1),
        "max": floats(stats, 0),
        "min": floats(stats, 1),
        "size": tuple(size.Get(number_types.Uint32Flags, field(size, slot)) for slot in (0, 1)),
    }
    for output in children(subgraph, 3):
        files = children(output, 6) if output.Offset(4 + 2 * 6) else []
        labels = [(text(file, 0), file.Get(number_types.Int8Flags, field(file, 2))) for file in files]
        yield {"name": text(output, 0), "files": labels}
