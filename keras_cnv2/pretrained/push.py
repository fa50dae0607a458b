"""Uploads a folder to the Hugging Face hub, with the hub's own library."""

import re
from pathlib import Path

from keras_cnv2.pretrained.onnx_folder import FILE
from keras_cnv2.pretrained.save import CARD, MODEL, ONNX, WEIGHTS

REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)

# One of these is in each folder that is uploaded, next to the card.
MODELS = (WEIGHTS, MODEL, f"{ONNX}/{FILE}")


def push(folder, repository, private=None):
    """Uploads a folder as one commit, and creates the repository if there is none.

    Address and token are those of the hub's library: `hf auth login`, or the variables HF_TOKEN and HF_ENDPOINT. Files
    of the repository that the folder does not have stay there. Hidden files are not uploaded.

    Args:
        folder: Path of a folder that `keras_cnv2.save_pretrained` or `export_onnx` has written.
        repository: String "owner/name".
        private: Optional bool, whether a new repository is private. By default as the owner's settings on the hub say.

    Returns:
        The address of the commit.

    Raises:
        ValueError: If the folder or the name of the repository is not one.
        OSError: If there is no token, or the upload failed. The repository then has none of the files.
    """
    folder = Path(folder)
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"A repository is given as OWNER/NAME. Received: {repository!r}")
    if not folder.is_dir() or not (folder / CARD).is_file() or not any((folder / name).is_file() for name in MODELS):
        raise ValueError(
            f"This is no folder of `keras_cnv2.save_pretrained`, with {CARD} and one of {', '.join(MODELS)}. "
            f"Received: {folder}"
        )
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise OSError(
            "The hub takes uploads with a token only: log in with `hf auth login`, or set HF_TOKEN. Received: none"
        )
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        return hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload with keras_cnv2",
            ignore_patterns=[".*", "*/.*"],
        ).commit_url
    except Exception as error:  # raised by the hub's library, its HTTP library or the operating system
        raise OSError(
            f"Could not upload to {repository}: {_reason(error)}. "
            f"Received: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _reason(error):
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return "your token does not allow to write there: log in with `hf auth login` as a member of the owner"
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE forbids asking the hub"
    return "the connection failed, or the hub is out of order: run it again"
