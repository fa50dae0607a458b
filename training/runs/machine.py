"""Describes the machine of a run or a benchmark, and the versions of packages."""

import os
import platform
import subprocess
from importlib import import_module
from pathlib import Path

PACKAGES = ("keras_cnv2", "keras", "tensorflow", "jax", "torch", "numpy")

# CPU flags that affect the speed of matrix products.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def machine():
    """Returns the CPU's model, the number of cores that this process may use, and CPU flags; less except on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = {*values.get("flags", "").split()}
    parts = [values.get("model name", platform.machine()), f"{len(os.sched_getaffinity(0))} cores"]
    return ", ".join([*parts, *(flag for flag in FLAGS if flag in flags)])


def gpus():
    """Returns names and drivers of NVIDIA GPUs, one per line; an empty string if there are none."""
    return output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def system():
    """Returns a dict that describes the machine, its GPUs and the operating system."""
    found = {"machine": machine(), "GPU": gpus(), "system": platform.platform()}
    return {name: value for name, value in found.items() if value}


def output(*command, folder=None):
    """Returns the output of a command; an empty string if the command does not exist or fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    except OSError:
        return ""
    return "" if run.returncode else run.stdout.strip()


def versions():
    """Returns the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = import_module(name).__version__
        except ImportError:
            continue
    return found
