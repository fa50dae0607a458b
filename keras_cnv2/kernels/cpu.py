import os
import platform
import sys

import keras


def trains_fast(dtype):
    """Whether the fast CPU kernels of `depthwise` and `fused` apply to this dtype on this machine.

    They do with TensorFlow if it sees only CPUs and uses oneDNN's kernels. That is the default on x86, except on Macs.

    Args:
        dtype: String, the dtype in which a layer computes.
    """
    if keras.backend.backend() != "tensorflow" or dtype not in ("float32", "bfloat16") or not _onednn():
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def _onednn():
    x86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "darwin"
    return x86 and os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() not in ("0", "false")
