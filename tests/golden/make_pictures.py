"""Makes pictures.npz: pictures of every kind that is read, and what PIL makes of them.

Run by hand, with Pillow, which the tests do not need: python -m tests.golden.make_pictures

Per picture: `<name>/file`, its bytes; `/rgb`, its pixels; `/crop<size>` and `/squash<size>`, the images for evaluation.
Pillow 13 sometimes resizes columns first. The reference is its long-standing order, rows first, then columns, hence one
call for each. The files under `refused/` have no reference.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.golden import rule

# (width, height), what PIL converts it to before saving, the format, how it is saved.
PICTURES = {
    "jpeg_444": ((51, 40), "RGB", "JPEG", {"subsampling": "4:4:4"}),
    "jpeg_420": ((41, 67), "RGB", "JPEG", {"subsampling": "4:2:0"}),
    "jpeg_grey": ((72, 72), "L", "JPEG", {}),
    "jpeg_cmyk": ((48, 56), "CMYK", "JPEG", {}),
    "jpeg_progressive": ((80, 60), "RGB", "JPEG", {"progressive": True}),
    "jpeg_large": ((500, 375), "L", "JPEG", {}),
    "png_rgb": ((40, 49), "RGB", "PNG", {}),
    "png_rgba": ((45, 37), "RGBA", "PNG", {}),
    "png_grey": ((12, 150), "L", "PNG", {}),
    "png_palette": ((64, 64), "P", "PNG", {}),
    "png_1bit": ((101, 75), "1", "PNG", {}),
    "png_wide": ((300, 9), "RGB", "PNG", {}),
    "png_pixel": ((1, 1), "RGB", "PNG", {}),
    "bmp_rgb": ((35, 41), "RGB", "BMP", {}),
    "bmp_grey": ((53, 40), "L", "BMP", {}),
    "webp_lossy": ((100, 75), "RGB", "WEBP", {}),
    "webp_lossless": ((47, 31), "RGB", "WEBP", {"lossless": True}),
    "webp_alpha": ((50, 37), "RGBA", "WEBP", {}),
    "webp_lossless_alpha": ((31, 40), "RGBA", "WEBP", {"lossless": True, "exact": True}),
    "gif": ((50, 40), "P", "GIF", {}),
    "gif_animated": ((40, 40), "P", "GIF", {"save_all": True}),
    "refused/bmp_palette": ((20, 16), "P", "BMP", {}),
    "refused/bmp_1bit": ((20, 16), "1", "BMP", {}),
    "refused/webp_animated": ((20, 16), "RGBA", "WEBP", {"save_all": True}),
    "refused/webp_animated_opaque": ((20, 16), "RGB", "WEBP", {"save_all": True}),
}

# At the sizes of the models: one picture is made smaller, one larger.
SIZES = {"jpeg_large": ((224, "crop"), (384, "squash")), "png_rgba": ((224, "crop"), (384, "squash"))}


def drawing(seed, width, height):
    """Smooth waves, a patch of noise, thin lines as in text, alpha growing from left to right; RGBA."""
    y, x = np.mgrid[:height, :width]
    pixels = np.empty((height, width, 4), "uint8")
    for channel, (down, right, phase) in enumerate(np.random.default_rng(seed).uniform(2, 7, (3, 3))):
        pixels[..., channel] = 128 + 110 * np.sin(down * y / height + right * x / width + phase)
    pixels[..., 3] = 255 * x // width
    patch = pixels[height // 2 : height // 2 + 8, : width // 3, :3]
    patch[:] = np.clip(rule.image(seed, 1, *patch.shape[:2])[0] * 60 + 128, 0, 255)
    lines = (y > height // 6) & (y < height // 3) & (x > width // 2)
    pixels[lines & (x % 5 < 2), :3] = 0
    pixels[lines & (y % 4 == 0), :3] = 255
    return Image.fromarray(pixels)


def converted(image, mode):
    if mode == "RGBA":
        return image
    image = image.convert("RGB")
    # Dithering alternates black and white: made smaller, many pixels come to exactly 127.5, and how PIL rounds those is
    # up to the last bits of its fixed-point weights.
    return image.quantize(64) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)


def encoded(seed, size, mode, kind, options):
    first, second = (converted(drawing(seed + frame, *size), mode) for frame in (0, 1000))
    frames = {"append_images": [second]} if "save_all" in options else {}
    file = io.BytesIO()
    first.save(file, kind, **options, **frames)
    return file.getvalue()


def resized(image, width, height):
    return image.resize((width, image.height), Image.BICUBIC).resize((width, height), Image.BICUBIC)


def square(image, size, resize):
    """The image for evaluation: the shortest side becomes `target`, and the centre is cut out; or all is squashed."""
    if resize == "squash":
        return resized(image, size, size)
    shortest, target = min(image.size), int(size / 0.875)
    image = resized(image, *(target * side // shortest for side in image.size))
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))


def differences(image):
    """What compresses well; two cumulative sums undo it."""
    pixels = np.asarray(image)
    for axis in (0, 1):
        pixels = np.diff(pixels, axis=axis, prepend=np.uint8(0))
    return pixels


def main():
    arrays = {}
    for seed, (name, arguments) in enumerate(PICTURES.items()):
        contents = encoded(seed, *arguments)
        arrays[f"{name}/file"] = np.frombuffer(contents, "uint8")
        if name.startswith("refused/"):
            continue
        image = Image.open(io.BytesIO(contents)).convert("RGB")
        if name != "jpeg_large":
            arrays[f"{name}/rgb"] = differences(image)
        for size, resize in SIZES.get(name, ((48, "crop"), (48, "squash"))):
            arrays[f"{name}/{resize}{size}"] = differences(square(image, size, resize))
    np.savez_compressed(Path(__file__).with_name("pictures.npz"), **arrays)


if __name__ == "__main__":
    main()
