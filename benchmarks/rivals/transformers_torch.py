"""transformers' ConvNeXt V2 on PyTorch: eager or compiled, in either memory layout, with one thread per core."""

import contextlib
import os

import torch
import transformers

from benchmarks.adamw import EPSILON, LEARNING_RATE, WEIGHT_DECAY


def model(task, device="cpu", layout="channels_last"):
    """Returns the classifier with the weights of the task; `layout` is one of PyTorch's memory formats."""
    config = transformers.ConvNextV2Config(
        depths=list(task.depths),
        hidden_sizes=list(task.dims),
        num_labels=task.classes,
        patch_size=task.stem_stride,
        layer_norm_eps=1e-6,  # of the last norm, as in the original model; the library's default is 1e-12
    )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    made = transformers.ConvNextV2ForImageClassification(config)
    if task.weights:
        tensors = {name: torch.from_numpy(array) for name, array in task.state_dict("transformers").items()}
        made.load_state_dict(tensors, strict=True)
    return made.to(device, memory_format=getattr(torch, layout))


def images(task, device="cpu", layout="channels_last"):
    tensor = torch.from_numpy(task.images().transpose(0, 3, 1, 2))
    return tensor.to(device).contiguous(memory_format=getattr(torch, layout))


def compiled(function, mode):
    """Returns `function` unchanged for mode `None`, else compiled in a mode of torch.compile for fixed shapes."""
    return torch.compile(function, mode=mode, dynamic=False) if mode else function


def with_peak(run, device):
    """Adds an attribute `peak` to `run`, which returns the GPU's peak memory, if the device is a GPU."""
    if device == "cuda":
        run.peak = torch.cuda.max_memory_allocated
    return run


def inference(task, mode=None, layout="channels_last", device="cpu", dtype="float32"):
    """Returns a function that computes logits."""
    made = model(task, device, layout).eval().to(getattr(torch, dtype))
    forward = compiled(lambda x: made(x).logits, mode)
    x = images(task, device, layout).to(getattr(torch, dtype))

    @torch.inference_mode()
    def run():
        return forward(x).float().cpu().numpy()

    return with_peak(run, device)


def training(task, mode=None, device="cpu", dtype="float32"):
    """Returns a function that makes a training step with AdamW, weights in float32, arithmetic in `dtype`."""
    made = model(task, device).train()
    figures = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "eps": EPSILON}
    optimizer = torch.optim.AdamW(made.parameters(), fused=True, **figures)
    x, labels = images(task, device), torch.from_numpy(task.labels()).to(device)
    forward = compiled(lambda x: torch.nn.functional.cross_entropy(made(x).logits.float(), labels), mode)
    half = torch.autocast(device, getattr(torch, dtype)) if dtype != "float32" else contextlib.nullcontext()

    def run():
        with half:
            loss = forward(x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().cpu().numpy()

    return with_peak(run, device)
