"""What docs/distribute.md, slurm.sh and kubernetes.yaml say is so."""

import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import keras_cnv2
from keras_cnv2.sizes import SIZES
from training.__main__ import main
from training.recipes.images import IMAGENET, PRETRAINING

DOCS = Path(__file__).parents[2] / "docs"
FILES = ("distribute.md", "slurm.sh", "kubernetes.yaml")
TEXTS = {name: (DOCS / name).read_text().replace("\\\n", " ") for name in FILES}
PAGE = TEXTS["distribute.md"]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# A command ends with its line, or goes on in lines of options (YAML).
COMMAND = re.compile(r"keras-cnv2 (\w+)([^\n`]*(?:\n\s+--[^\n]*)*)")


@pytest.fixture
def options(capsys):
    """The options of a command, from its help."""

    def of(command):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return set(OPTION.findall(capsys.readouterr().out))

    return of


def rows_of(start):
    """The cells of the rows of the table whose first line starts so."""
    lines = PAGE[PAGE.index(f"| {start}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_slurm_script_is_bash():
    subprocess.run(["bash", "-n", DOCS / "slurm.sh"], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (75, True), (137, False), (143, True)])
def test_slurm_script_goes_on_after_sigterm_alone(tmp_path, code, again):
    for name, lines in {"srun": f'echo "$@"\nexit {code}', "scontrol": 'echo scontrol "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", DOCS / "slurm.sh", "--epochs", "800"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    started, *after = done.stdout.splitlines()
    assert started.endswith(" --cluster slurm --epochs 800"), "the script's options are the command's"
    assert (done.returncode, after) == (code, ["scontrol requeue 7"] * again)


def test_commands_have_their_options(options):
    found = [(name, *match) for name, text in TEXTS.items() for match in COMMAND.findall(text)]
    assert {name for name, _, _ in found} == {*FILES}
    for _, command, arguments in found:
        assert OPTION.findall(arguments)
        assert set(OPTION.findall(arguments)) <= options(command)


def test_options_named_in_the_text(options):
    mentioned = {option for code in re.findall(r"`([^`\n]+)`", PAGE) for option in OPTION.findall(code)}
    others = "\n".join([COMMAND.sub("", TEXTS["slurm.sh"]), *re.findall("gcloud .*", PAGE)])
    assert {"--batch-size", "--accumulation"} <= mentioned - set(OPTION.findall(others)) <= options("pretrain")


@pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate"])
def test_distribution_is_an_option(command, options):
    assert {"--strategy", "--cluster", "--task"} <= options(command)


def test_scripts_use_recipes_that_exist():
    for text in TEXTS.values():
        for _, arguments in COMMAND.findall(text):
            for name in re.findall(r"--recipe (\w+)", arguments):
                assert name in PRETRAINING
            for size in re.findall(r"--model (\w+)", arguments):
                assert size in SIZES


def test_kubernetes_workers_find_each_other():
    service, job = pytest.importorskip("yaml").safe_load_all((DOCS / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (command,) = container["args"]
    hosts = re.search(r"--cluster (\S+)", command)[1].split(",")
    name, subdomain, port = job["metadata"]["name"], pod["subdomain"], service["spec"]["ports"][0]["port"]
    assert hosts == [f"{name}-{index}.{subdomain}:{port}" for index in range(spec["completions"])]
    assert spec["parallelism"] == spec["completions"]
    assert spec["completionMode"] == "Indexed"
    assert subdomain == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert pod["restartPolicy"] == "Never"  # which a podFailurePolicy demands
    assert command.startswith("exec keras-cnv2 ")
    assert command.endswith('--task "$JOB_COMPLETION_INDEX"')
    policies = spec["podFailurePolicy"]["rules"]
    assert {p["onExitCodes"]["containerName"] for p in policies if "onExitCodes" in p} == {container["name"]}
    assert [p["action"] for p in policies if p.get("onExitCodes", {}).get("values") == [75]] == ["Ignore"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_tf_config_is_json():
    config = json.loads(re.search(r"TF_CONFIG='(.*)'", PAGE)[1])
    assert set(config) == {"cluster", "task"}


def test_example_is_python():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    compile(example, "distribute.md", "exec")
    assert sum(bool(line) for line in example.splitlines()) <= 10


def test_learning_rates():
    stated = {row[0]: row[1:] for row in rows_of("| batch | images a replica")}
    rows = {"pre-training": PRETRAINING["imagenet"], **IMAGENET}
    for name, recipe in rows.items():
        size = name.removeprefix("imagenet_")
        label = next(label for label in stated if re.search(rf"\b{size}\b", label.partition("(")[0]))
        batch, images, lr = stated[label]
        base, given, divisor, result = map(float, re.findall(r"[\d.e-]+\d|\d", lr))
        assert (int(batch), int(images)) == (recipe.batch_size, recipe.batch_size // 32)
        assert (base, given, divisor) == (recipe.base_lr, recipe.batch_size, 256)
        assert math.isclose(result, recipe.lr)


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


@pytest.mark.parametrize("size", ["atto", "tiny"])
def test_parameters(size):
    stated = {row[0]: row[1] for row in rows_of("| trainable parameters")}
    assert stated[f"FCMAE, {size}"] == f"{parameters(keras_cnv2.FCMAE(size, image_size=224)):,}"
    architecture = {"depths": SIZES[size].depths, "dims": SIZES[size].dims}
    assert stated[f"classifier, {size}"] == f"{parameters(keras_cnv2.ConvNeXtV2(**architecture, classes=1000)):,}"


def test_traffic():
    for label, count, *cells in rows_of("| trainable parameters"):
        kind, size = label.split(", ")
        count = int(count.replace(",", ""))
        if kind == "classifier":
            assert count == SIZES[size].parameters
        megabytes = 4 * count / 1e6
        ring, milliseconds = 2 * 31 / 32 * megabytes, 1.5 * megabytes / 25 + 1.75 * megabytes / 300
        expected = [(megabytes, "MB"), (ring, "MB"), (ring / 25, "ms"), (milliseconds, "ms"), (ring / 100, "ms")]
        for cell, (value, unit) in zip(cells, expected):
            figure, stated = cell.split()
            assert stated == unit
            decimals = len(figure.partition(".")[2])
            assert abs(float(figure) - value) <= 0.51 * 10**-decimals


def test_cores():
    assert "medians of 1226 and 822 images a second" in (DOCS.parent / "README.md").read_text()
    for rate, need, cores in rows_of("r, images/s a GPU"):
        assert int(need) == 8 * int(rate)
        assert int(cores) == math.ceil(int(need) / 613)
