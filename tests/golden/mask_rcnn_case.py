"""The small Mask R-CNN of the golden file mask_rcnn.npz: its weights, images and labels. NumPy only.

`make_mask_rcnn.py` gives them to torchvision, the tests to this package.
"""

import numpy as np

CLASSES, WIDTH, UNITS, CONVS = 3, 16, 32, 2
CHANNELS = {4: 8, 8: 12, 16: 16, 32: 20}
SIZES = ((128, 128), (192, 256))


def weights():
    """Returns {name: array} in Keras's layout: kernels are (height, width, inputs, outputs) or (inputs, outputs)."""
    rng = np.random.default_rng(0)

    def layer(name, *shape, scale=1.0):
        inputs = np.prod(shape[:-1])
        found[f"{name}/kernel"] = (scale * rng.normal(size=shape) / np.sqrt(inputs)).astype("float32")
        found[f"{name}/bias"] = (0.1 * scale * rng.normal(size=shape[-1])).astype("float32")

    found = {}
    for level, (stride, channels) in enumerate(CHANNELS.items(), start=2):
        layer(f"backbone/{level}", stride, stride, 3, channels)
        layer(f"pyramid/lateral_{level}", 1, 1, channels, WIDTH)
        layer(f"pyramid/output_{level}", 3, 3, WIDTH, WIDTH)
    layer("proposal_head/conv", 3, 3, WIDTH, WIDTH)
    layer("proposal_head/objectness", 1, 1, WIDTH, 3)
    layer("proposal_head/deltas", 1, 1, WIDTH, 12, scale=0.4)
    layer("box_head/dense_1", 7 * 7 * WIDTH, UNITS)
    layer("box_head/dense_2", UNITS, UNITS)
    layer("box_head/logits", UNITS, CLASSES + 1, scale=2.0)
    layer("box_head/deltas", UNITS, 4 * CLASSES, scale=0.5)
    for number in range(CONVS):
        layer(f"mask_head/conv_{number}", 3, 3, WIDTH, WIDTH)
    layer("mask_head/double", 2, 2, WIDTH, WIDTH)  # (height, width, outputs, inputs), as Keras transposes them
    layer("mask_head/logits", 1, 1, WIDTH, CLASSES, scale=4.0)
    return found


def images(height, width):
    """Returns two images with values around 0, whose lower half is another one than the upper."""
    drawn = np.random.default_rng(height).normal(size=(2, height, width, 3))
    return (drawn + np.linspace(-1, 1, height)[:, None, None]).astype("float32")


def labels(height, width):
    """Returns boxes (2, 3, 4), classes (2, 3) and masks (2, 3, height, width); the second image has one object."""
    boxes = np.zeros((2, 3, 4), "float32")
    boxes[0] = [[10, 20, 60, 90], [50.5, 40.25, 110, 100.75], [3, 2, 30, 12]]
    boxes[1, 0] = [20, 30, width - 30, height - 20]
    classes = np.array([[0, 2, 1], [1, -1, -1]], "int32")
    masks = np.zeros((2, 3, height, width), "uint8")
    y, x = np.mgrid[:height, :width] + 0.5
    for image, number in np.argwhere(classes >= 0):
        left, top, right, bottom = boxes[image, number]
        across, down = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
        masks[image, number] = across**2 + down**2 < 1  # an ellipse in the box
    return boxes, classes, masks


def some_boxes(height, width):
    """Returns boxes (2, 8, 4) of all levels of the pyramid, within the image."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 0.6, (2, 8, 2))
    sides = 0.4 * rng.uniform(0.05, 1, (2, 8, 2))
    return (np.concatenate([corner, corner + sides], -1) * [width, height, width, height]).astype("float32")


def draws(number, images=2, seed=2):
    """Returns (images, number) random numbers, which select the samples."""
    return np.random.default_rng(seed).uniform(size=(images, number)).astype("float32")
