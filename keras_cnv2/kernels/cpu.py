import os
import platform
import sys

import keras


def trains_fast(dtype):
    """Whether training with this dtype is here and now what `depthwise` and `fused` are for.

    That is TensorFlow with nothing but CPUs and with oneDNN's kernels, as it has by default on x86 but on Macs.

    Args:
        dtype: Str, the dtype that a layer computes in.
    """
    if keras.backend.backend() != "tensorflow" or dtype not in ("float32", "bfloat16") or not _onednn():
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def _onednn():
    x86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "darwin"
    return x86 and os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() not in ("0", "false")
