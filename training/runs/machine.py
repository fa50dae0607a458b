"""The machine that a run or a benchmark has, as far as it can be asked."""

import os
import platform
import subprocess
from pathlib import Path

# What matters for matrix products, of the flags of a CPU.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def machine():
    """The CPU's model and flags and how many cores this process may use, as far as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = {*values.get("flags", "").split()}
    parts = [values.get("model name", platform.machine()), f"{len(os.sched_getaffinity(0))} cores"]
    return ", ".join([*parts, *(flag for flag in FLAGS if flag in flags)])


def gpus():
    """Names and drivers of NVIDIA's GPUs, a line each; empty if there are none."""
    return output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def system():
    """{name: value} of machine, GPUs and operating system."""
    found = {"machine": machine(), "GPU": gpus(), "system": platform.platform()}
    return {name: value for name, value in found.items() if value}


def output(*command, folder=None):
    """What a command prints, empty if there is no such command or it fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    except OSError:
        return ""
    return "" if run.returncode else run.stdout.strip()
