"""Every source of data has the methods of `training.data.source.Source`, with the same arguments."""

import inspect

import pytest

from training.data.boxes.folders import CocoFolder, VocFolder
from training.data.boxes.tfds import TfdsBoxes
from training.data.images.arrays import Arrays
from training.data.images.folders import Folder
from training.data.images.tfds import Tfds
from training.data.scenes.folders import SceneFolder
from training.data.scenes.tfds import TfdsScenes
from training.data.source import Source

METHODS = [name for name, value in vars(Source).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", [Arrays, Folder, Tfds, SceneFolder, TfdsScenes, VocFolder, CocoFolder, TfdsBoxes])
def test_methods(source, method):
    asked, given = (
        [(argument.name, argument.default) for argument in inspect.signature(getattr(cls, method)).parameters.values()]
        for cls in (Source, source)
    )
    assert given[: len(asked)] == asked
    assert all(default is not inspect.Parameter.empty for _, default in given[len(asked) :])
