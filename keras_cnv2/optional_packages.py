"""Optional packages, imported on first use."""


def import_keras_cv(model):
    """Imports KerasCV.

    Args:
        model: String, the model that needs KerasCV, for the error message.

    Returns:
        The module `keras_cv`.

    Raises:
        ImportError: If it cannot be imported. The message says how to install it.
    """
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(f'{model} is made with KerasCV: pip install "keras_cnv2[keras-cv]" ({error})') from error
    return keras_cv


def import_keras_hub():
    """Imports KerasHub.

    Returns:
        The module `keras_hub`.

    Raises:
        ImportError: If it cannot be imported. The message says how to install it.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f'keras_cnv2.keras_hub needs KerasHub: pip install "keras_cnv2[keras-hub]" ({error})'
        ) from error
    return keras_hub


def import_pillow(drawn):
    """Imports the modules of Pillow that draw.

    Args:
        drawn: String in the plural, what is drawn with Pillow, for the error message.

    Returns:
        The modules `Image`, `ImageDraw` and `ImageFont`.

    Raises:
        ImportError: If they cannot be imported. The message says how to install Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError(f"{drawn} are drawn with Pillow: pip install pillow ({error})") from error
    return Image, ImageDraw, ImageFont
