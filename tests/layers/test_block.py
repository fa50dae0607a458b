import copy
import itertools

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.folding.block import FoldedBlock


@pytest.fixture
def block():
    layer = keras_cnv2.ConvNeXtV2Block(6)
    layer.build((None, 8, 8, 6))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.standard_normal(w.shape) * 0.3 for w in layer.get_weights()])
    return layer


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((3, 8, 8, 6)).astype("float32")


def run(layer, *args):
    return keras.ops.convert_to_numpy(layer(*args))


@pytest.mark.backends
def test_weights_and_their_paths(block):
    names = [weight.path.split("/", 1)[1] for weight in block.weights]
    layers = ["dwconv/kernel", "dwconv/bias", "norm/gamma", "norm/beta", "pwconv1/kernel", "pwconv1/bias"]
    assert names == [*layers, "grn/gamma", "grn/beta", "pwconv2/kernel", "pwconv2/bias"]
    assert block.grn.gamma.shape == (24,)


@pytest.mark.backends
def test_nothing_hidden_changes_nothing(block, x):
    np.testing.assert_allclose(run(block, x, np.zeros(x.shape[:3])), run(block, x), rtol=1e-6, atol=1e-6)


@pytest.mark.backends
def test_mask_cuts_the_image_off_bit_for_bit(block, x):
    hidden = np.zeros(x.shape[:3], "float32")
    hidden[:, 3:, :] = 1
    other = np.where(hidden[..., None] == 1, 100 * x, x)
    y = run(block, x, hidden)
    np.testing.assert_array_equal(y, run(block, other, hidden))
    assert (y[hidden == 1] == 0).all()
    # Zeros beyond the edge are what the convolution pads with, and GRN sees the visible rows alone.
    np.testing.assert_allclose(y[:, :3], run(block, x[:, :3]), rtol=1e-4, atol=1e-5)


@pytest.mark.backends
def test_dropped_block_returns_its_input(x):
    layer = keras_cnv2.ConvNeXtV2Block(6, drop_path_rate=0.5)
    layer.build(x.shape)
    many = np.repeat(x[:1], 64, axis=0)
    unchanged = (keras.ops.convert_to_numpy(layer(many, training=True)) == many).all(axis=(1, 2, 3))
    assert 10 < unchanged.sum() < 54


@pytest.mark.backends
def test_blocks_drop_samples_independently(x):
    """A copy, too, and each block at every call."""
    blocks = [keras_cnv2.ConvNeXtV2Block(6, drop_path_rate=0.5) for _ in range(2)]
    blocks.append(keras_cnv2.ConvNeXtV2Block.from_config(blocks[0].get_config()))
    many = np.repeat(x[:1, :2, :2], 64, axis=0)
    calls = [keras.ops.convert_to_numpy(block(many, training=True)) for block in (*blocks, blocks[0])]
    dropped = [(y == many).all(axis=(1, 2, 3)) for y in calls]
    for one, two in itertools.combinations(dropped, 2):
        assert 10 < (one != two).sum() < 54


@pytest.mark.parametrize("dim", [0, -1, 2.5, None])
def test_impossible_dim(dim):
    with pytest.raises(ValueError, match="dim must be a positive int. Received"):
        keras_cnv2.ConvNeXtV2Block(dim)


@pytest.mark.parametrize("rate", [1, -0.5, "0.1"])
def test_impossible_rate(rate):
    with pytest.raises(ValueError, match="drop_path_rate must be a number in .*Received"):
        keras_cnv2.ConvNeXtV2Block(4, drop_path_rate=rate)


@pytest.mark.backends
@pytest.mark.parametrize("cls", [keras_cnv2.ConvNeXtV2Block, FoldedBlock])
def test_numpy_int(cls):
    layer = cls(np.int64(6))
    assert run(layer, np.zeros((1, 8, 8, 6))).shape == (1, 8, 8, 6)
    assert cls.from_config(layer.get_config()).dim == 6


@pytest.mark.backends
def test_remat_is_kept(tmp_path):
    blocks = [keras_cnv2.ConvNeXtV2Block(6, remat=True), keras_cnv2.ConvNeXtV2Block(6), keras_cnv2.ConvNeXtV2Block(6)]
    blocks[1].remat = True
    assert "remat" not in blocks[2].get_config()  # older releases do not know it
    model = keras.Sequential([keras.Input((8, 8, 6)), *blocks])
    model.save(tmp_path / "model.keras")
    saved = keras.saving.load_model(tmp_path / "model.keras")
    for again in (saved, copy.deepcopy(model), keras.models.clone_model(model)):
        assert [block.remat for block in again.layers] == [True, True, False]


def test_mask_of_another_shape_in_a_functional_model():
    x = keras.Input((8, 8, 6))
    for shape in ((4, 4), (8, 8, 1)):
        with pytest.raises(ValueError, match=r"hidden must have the shape \(N, H, W\).*Received: shape \(None, "):
            keras_cnv2.ConvNeXtV2Block(6)(x, keras.Input(shape))
    assert keras_cnv2.ConvNeXtV2Block(6)(x, keras.Input((None, 8))).shape == x.shape


def test_input_of_other_width():
    with pytest.raises(ValueError, match="dim=6 channels. Received"):
        keras_cnv2.ConvNeXtV2Block(6).build((None, 8, 8, 5))
