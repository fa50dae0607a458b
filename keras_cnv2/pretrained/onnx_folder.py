"""The folder of an ONNX file in the layout of transformers: onnx/model.onnx, with configuration files next to it."""

import contextlib
import json
from pathlib import Path

from keras_cnv2.files import check_target, new_folder, read_file, replacing
from keras_cnv2.pretrained.card import card_of
from keras_cnv2.pretrained.save import CARD, ONNX, as_json, configuration

FILE = "model.onnx"


@contextlib.contextmanager
def writing(folder, facts):
    """Yields the path at which to write an ONNX file. After the block, it and its configuration are in `folder`.

    Args:
        folder: Path of a new folder, or of one that `save_pretrained` has written for this model. Files of
            configuration that are there already stay.
        facts: `Facts` of the model.

    Raises:
        OSError: If the folder cannot be written, or its configuration is that of another model.
    """
    files = configuration(facts, "transformers")
    if not folder.exists():
        with new_folder(folder) as temporary:
            (temporary / ONNX).mkdir()
            yield temporary / ONNX / FILE
            for name, contents in files.items():
                (temporary / name).write_text(as_json(contents), "utf-8")
            (temporary / CARD).write_text(card_of(facts.model, "transformers.js", facts), "utf-8")
        return
    absent = [name for name, contents in files.items() if not _is_there(folder / name, contents)]
    check_target(folder / ONNX)
    (folder / ONNX).mkdir(exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(folder / ONNX / FILE))
            texts = {name: stack.enter_context(replacing(folder / name)) for name in absent}
            yield temporary
            for name, path in texts.items():
                path.write_text(as_json(files[name]), "utf-8")
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            (folder / ONNX).rmdir()


def _is_there(path, contents):
    """Whether there is this file of configuration. Raises an error if it says something else than `contents`."""
    if not path.exists():
        return False
    try:
        found = json.loads(read_file(path))
        same = all(found[name] == value for name, value in json.loads(json.dumps(contents)).items())
    except (ValueError, KeyError, TypeError, RecursionError):
        same = False
    if not same:
        raise FileExistsError(
            "This file describes another model, or the same one in another way: give another folder, or delete the "
            f"file. Received: {Path(path)}"
        )
    return True
