"""python -m benchmarks [NAME ...] [--rounds N] [--out FOLDER] [options of the one benchmark]"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, the module `benchmarks.NAME`, whose `main` takes `--rounds` and `--out`.

    Args:
        about: Summary for `--list`.
        photos: Bool, whether its first argument is a folder of photographs.
        gpu: Bool, whether it needs a GPU.
    """

    about: str
    photos: bool = False
    gpu: bool = False


BENCHMARKS = {
    "inference": Benchmark("latency of classification on the CPU, compared with other implementations"),
    "training_step": Benchmark("time of a training step (forward, backward, AdamW) on the CPU, compared with PyTorch"),
    "small_images": Benchmark("time of a training step on 32 x 32 pixels on the CPU, compared with PyTorch"),
    "two_stage": Benchmark("time and memory of Mask R-CNN on the CPU by parts, some of them compared with torchvision"),
    "fcmae_encoders": Benchmark("time of an FCMAE training step with the visible and with the dense encoder"),
    "input_pipeline": Benchmark("images per second from JPEG files to batches, compared with PIL", photos=True),
    "startup": Benchmark("time to import, to build a model and to the first prediction, each in a new process"),
    "growth": Benchmark("time and memory as functions of batch size, resolution and model size, with a plot"),
    "litert": Benchmark("size, latency and agreement of LiteRT files for each quantization", photos=True),
    "serving_load": Benchmark("latency and throughput of a served model under load, with and without batching"),
    "gpu": Benchmark("images per second on a GPU: JAX in bfloat16, compared with PyTorch", gpu=True),
}


def obstacle(benchmark, photos):
    """Returns why the benchmark cannot run here, or `None`."""
    if benchmark.photos and not photos:
        return "needs --photos FOLDER"
    if benchmark.gpu and not shutil.which("nvidia-smi"):
        return "no GPU here"
    return None


def command(name, args, others):
    """Returns the command line of a benchmark, with all options."""
    benchmark = BENCHMARKS[name]
    photos = [args.photos] if benchmark.photos else []
    rounds = ["--rounds", str(args.rounds)] if args.rounds else []
    out = ["--out", args.out] if args.out else []
    return [sys.executable, "-m", f"benchmarks.{name}", *photos, *rounds, *out, *others]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures keras_cnv2.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; default: all that this machine can run")
    parser.add_argument("--list", action="store_true", help="print the list of benchmarks and exit")
    parser.add_argument("--rounds", type=int, help="number of rounds; default: that of each benchmark")
    parser.add_argument("--out", type=lambda path: str(Path(path).resolve()), help="folder for CSV files and tables")
    parser.add_argument("--photos", type=lambda path: str(Path(path).resolve()), help="folder of JPEG files")
    args, others = parser.parse_known_args(argv)
    unknown = set(args.names) - set(BENCHMARKS)
    if unknown or (others and len(args.names) != 1):
        parser.error(f"unknown: {', '.join([*unknown, *others])}. There are: {', '.join(BENCHMARKS)}")

    failed = []
    for name, benchmark in BENCHMARKS.items():
        why_not = obstacle(benchmark, args.photos)
        if args.list:
            print(f"{name:16}{benchmark.about}" + (f" ({why_not})" if why_not else ""))
        elif name in args.names or not args.names:
            # A benchmark without a GPU is started anyway if the user names it; its own error says what it lacks.
            if why_not and (benchmark.photos or not args.names):
                print(f"skipped: {name}: {why_not}", flush=True)
            else:
                print(f"\n## {name}\n", flush=True)
                if subprocess.run(command(name, args, others), cwd=ROOT).returncode:
                    failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
