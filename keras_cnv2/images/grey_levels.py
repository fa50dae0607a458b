"""Recognizes 16-bit images of which too few grey levels remain at 8 bits."""

# Range of 16-bit values below which a warning is given: less than a quarter of the grey levels would be used.
SMALL_RANGE = 2**14


def small_range(contents):
    """Returns a warning if a 16-bit PNG, of which only the upper 8 bits are kept, uses few grey levels; else `None`.

    Args:
        contents: Bytes of the PNG, whose size must have been checked.
    """
    import tensorflow as tf

    try:
        values = tf.io.decode_png(contents, 3, tf.uint16).numpy()
    except tf.errors.OpError:  # a damaged file, which `decode` reports
        return None
    low, high = int(values.min()), int(values.max())
    if high - low >= SMALL_RANGE:
        return None
    return (
        f"is a PNG of 16 bits with values from {low} to {high} (of 0 to 65535): after conversion to 8 bits, only "
        f"{high // 256 - low // 256 + 1} of 256 grey levels remain. Stretch its values, or train on arrays in an .npz "
        "file"
    )
