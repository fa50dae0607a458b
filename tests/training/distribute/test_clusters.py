import json
import logging
import subprocess
import sys
import urllib.error
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tensorflow as tf

from training.distribute import clusters
from training.distribute.clusters import ClusterError, addresses, kubernetes_job, resolve, tpu

ROOT = Path(__file__).parents[3]
TWO = "a:1000,b:2000"
POD = "kubernetes:job-name=train,workers=2"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """An environment that says nothing of a cluster, on a machine with three GPUs."""
    for name in ("TF_CONFIG", "HOST_IP", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", *clusters.SLURM):
        monkeypatch.delenv(name, raising=False)
    for name in ("TPU_NAME", "TPU_CONFIG", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["gpu"] * 3 if kind == "GPU" else [])


def seen(resolver):
    """What a strategy asks a resolver for."""
    assert type(resolver) is tf.distribute.cluster_resolver.SimpleClusterResolver
    assert (resolver.rpc_layer, resolver.num_accelerators()) == ("grpc", {"GPU": 3})
    return resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id


def tf_config(monkeypatch, cluster, task):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))


def slurm(monkeypatch, rank, tasks, nodes, per_node, node=None):
    for name, value in zip(clusters.SLURM, (rank, tasks, nodes, per_node)):
        monkeypatch.setenv(name, str(value))
    if node:
        monkeypatch.setenv("SLURMD_NODENAME", node)


def test_needs_no_tensorflow():
    code = "import sys, training.distribute.clusters; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_list():
    assert seen(resolve(TWO, 1)) == ({"worker": ["a:1000", "b:2000"]}, "worker", 1)
    assert seen(resolve(" b:1 , a:65535", 0)) == ({"worker": ["b:1", "a:65535"]}, "worker", 0)
    assert seen(resolve("a.b-c.org:2222", task=0)) == ({"worker": ["a.b-c.org:2222"]}, "worker", 0)
    assert seen(resolve("[::1]:2222", task=0)) == ({"worker": ["[::1]:2222"]}, "worker", 0)


def test_counts_gpus_of_this_machine(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert resolve(TWO, 0).num_accelerators() == {"GPU": 0}


@pytest.mark.parametrize(
    ("cluster", "task", "message"),
    [
        (TWO, None, "task must be an integer.*Received: task=None"),
        (TWO, "1", "task must be an integer.*Received: task='1'"),
        (TWO, True, "task must be an integer.*Received: task=True"),
        (TWO, 2, "one of the workers, from 0. Received: 2 of .*b:2000"),
        (TWO, -1, "one of the workers, from 0. Received: -1"),
        ("a:1,b:2,a:1", 0, "its own address. Received: a:1, b:2, a:1"),
        ("a:1,", 0, "must be HOST:PORT. Received: ''"),
        ("a:1,b", 0, "must be HOST:PORT. Received: 'b'"),
        (":1", 0, "must be HOST:PORT. Received: ':1'"),
        ("http://a:1", 0, "must be HOST:PORT. Received: 'http://a:1'"),
        ("a:1,fd00::2:1", 0, r"IPv6 address must be \[ADDRESS\]:PORT. Received: 'fd00::2:1'"),
        ("a:0", 0, "port of 'a:0' must be an integer from 1 to 65535. Received: '0'"),
        ("a:65536", 0, "port of 'a:65536'.*Received: '65536'"),
        ("a:", 0, "port of 'a:'.*Received: ''"),
        ("a:-1", 0, "port of 'a:-1'.*Received: '-1'"),
        ("a:²", 0, "port of 'a:²'"),
        ("", None, "cluster must be tf_config, slurm.*kubernetes.*HOST:PORT.*Received: ''"),
        ("mpi", None, "cluster must be tf_config.*Received: 'mpi'"),
        ("tf_config:1", None, "cluster must be tf_config.*Received: 'tf_config:1'"),
        ("kubernetes", None, "cluster must be tf_config.*Received: 'kubernetes'"),
        ("mpi", 0, "task must come with a list of hosts. Received: task=0, cluster='mpi'"),
        ("tf_config", 0, "task must come with a list of hosts. Received: task=0"),
        ("slurm:1", 0, "task must come with a list of hosts. Received: task=0"),
        (POD, 1, "task must come with a list of hosts. Received: task=1"),
        (None, None, "cluster must be tf_config.*Received: none, and no"),
    ],
)
def test_unusable_description(cluster, task, message):
    with pytest.raises(ClusterError, match=message):
        resolve(cluster, task)


def test_addresses_put_the_chief_first(monkeypatch):
    assert addresses(resolve("b:1,a:2", 0)) == ["b:1", "a:2"]
    tf_config(monkeypatch, {"worker": ["b:1", "a:2"], "chief": ["c:3"]}, {"type": "chief", "index": 0})
    assert addresses(resolve()) == ["c:3", "b:1", "a:2"]


@pytest.mark.parametrize("cluster", [None, "tf_config"])
@pytest.mark.parametrize(
    ("jobs", "task"),
    [
        ({"worker": ["a:1", "b:2"]}, ("worker", 1)),
        ({"chief": ["c:3"], "worker": ["a:1", "b:2"]}, ("worker", 0)),
        ({"chief": ["c:3"]}, ("chief", 0)),
    ],
)
def test_tf_config(monkeypatch, cluster, jobs, task):
    tf_config(monkeypatch, jobs, {"type": task[0], "index": task[1]})
    assert seen(resolve(cluster)) == (jobs, *task)


W = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "must have a cluster.*Received: ''"),
        ("{", "TF_CONFIG must be JSON.*Received: '{'"),
        ("3", "TF_CONFIG must be JSON.*Received: '3'"),
        ("[]", "must have a cluster"),
        ({"task": {"type": "worker", "index": 0}}, "must have a cluster"),
        ({"cluster": {}, "task": {"type": "worker", "index": 0}}, "must have a cluster"),
        ({"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}, "must have a cluster"),
        ({"cluster": {"worker": {"1": "a:1"}}, "task": {"type": "worker", "index": 1}}, "must .*cluster"),
        ({"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}, "must be JSON with cluster and task"),
        ({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}, "must be JSON with cluster and task"),
        ({"cluster": W}, "must have a task"),
        ({"cluster": W, "task": {"type": "worker"}}, "must have a task"),
        ({"cluster": W, "task": {"index": 0}}, "must have a task"),
        ({"cluster": W, "task": {"type": "worker", "index": "x"}}, "must be JSON with cluster and task.*'x'"),
        ({"cluster": W, "task": {"type": "worker", "index": 2}}, "one of the workers, from 0. Received: 2"),
        ({"cluster": W, "task": {"type": "worker", "index": -1}}, "one of the workers, from 0. Received: -1"),
        ({"cluster": W, "task": {"type": "chief", "index": 0}}, "one of the chiefs, from 0. Received: 0"),
        ({"cluster": W, "task": {"type": "evaluator", "index": 0}}, "at most one chief.*task type evaluator"),
        ({"cluster": {**W, "ps": ["c:3"]}, "task": {"type": "ps", "index": 0}}, "at most one chief.*task type ps"),
        ({"cluster": {**W, "ps": ["c:3"]}, "task": {"type": "worker", "index": 0}}, "at most one chief.*'ps'"),
        ({"cluster": {**W, "chief": ["c:3", "d:4"]}, "task": {"type": "chief", "index": 0}}, "at most one chief"),
        ({"cluster": {**W, "chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "its own address"),
    ],
)
def test_unusable_tf_config(monkeypatch, config, message):
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ClusterError, match=message):
        resolve("tf_config")


def test_tf_config_comes_before_slurm(monkeypatch):
    slurm(monkeypatch, 0, 2, "n[1-2]", "1(x2)")
    tf_config(monkeypatch, W, {"type": "worker", "index": 1})
    assert seen(resolve()) == (W, "worker", 1)
    monkeypatch.setenv("TF_CONFIG", '{"rpc_layer": "grpc"}')
    assert seen(resolve()) == ({"worker": ["n1:8888", "n2:8888"]}, "worker", 0)


@pytest.mark.parametrize(
    ("nodes", "per_node", "workers"),
    [
        ("node[01-03,07]", "1(x4)", ["node01:8888", "node02:8888", "node03:8888", "node07:8888"]),
        ("a,b,c", "2(x2),1", ["a:8888", "a:8889", "b:8888", "b:8889", "c:8888"]),
        ("c,a[8-9]", "1,3,2", ["c:8888", "a8:8888", "a8:8889", "a8:8890", "a9:8888", "a9:8889"]),
        ("one", "2", ["one:8888", "one:8889"]),
        # Not in the order of strings: SLURM's first task is on node2.
        ("node[2,10]", "1(x2)", ["node2:8888", "node10:8888"]),
        ("node[9-11]", "1,2,1", ["node9:8888", "node10:8888", "node10:8889", "node11:8888"]),
        ("node[1-12]", "1(x12)", [f"node{number}:8888" for number in range(1, 13)]),
        ("one,two", "12,1", [*(f"one:{8888 + task}" for task in range(12)), "two:8888"]),
    ],
)
def test_slurm(monkeypatch, nodes, per_node, workers):
    # Neither may the resolver ask nvidia-smi nor hand out GPUs that SLURM has handed out already.
    monkeypatch.setattr(subprocess, "check_output", lambda *_, **__: pytest.fail("called a program"))
    for rank, address in enumerate(workers):
        slurm(monkeypatch, rank, len(workers), nodes, per_node, node=address.partition(":")[0] + ".cluster.org")
        assert seen(resolve("slurm")) == seen(resolve()) == ({"worker": workers}, "worker", rank)
        assert "CUDA_VISIBLE_DEVICES" not in clusters.os.environ


def test_slurm_port(monkeypatch):
    slurm(monkeypatch, 1, 2, "n1", "2")
    assert addresses(resolve("slurm:3000")) == ["n1:3000", "n1:3001"]
    for port in ("", "x", "0", "70000"):
        with pytest.raises(ClusterError, match=f"port of slurm:PORT must be .* Received: '{port}'"):
            resolve(f"slurm:{port}")
    with pytest.raises(ClusterError, match="port of 'n1:65536'"):
        resolve("slurm:65535")


def test_slurm_step_of_one_task_is_no_cluster(monkeypatch):
    slurm(monkeypatch, 0, 1, "n1", "1", node="n1")
    with pytest.raises(ClusterError, match="Received: none, and no cluster in TF_CONFIG or SLURM"):
        resolve()
    assert seen(resolve("slurm")) == ({"worker": ["n1:8888"]}, "worker", 0)


def test_slurm_tasks_in_another_order(monkeypatch):
    # As --distribution=cyclic places them: tasks 0 and 2 on n1, 1 and 3 on n2.
    slurm(monkeypatch, 1, 4, "n[1-2]", "2(x2)", node="n2")
    with pytest.raises(ClusterError, match="distribution=block.* hosts. Received: SLURM_PROCID=1, on n2, .*n1 "):
        resolve("slurm")


def test_slurm_full_and_short_names_are_the_same(monkeypatch):
    slurm(monkeypatch, 1, 2, "a.cluster.org,b.cluster.org", "1(x2)", node="b")
    assert seen(resolve()) == ({"worker": ["a.cluster.org:8888", "b.cluster.org:8888"]}, "worker", 1)


def test_slurm_lacks_variables(monkeypatch):
    with pytest.raises(ClusterError, match="Received: no " + ", ".join(clusters.SLURM)):
        resolve("slurm")
    slurm(monkeypatch, 0, 2, "n[1-2]", "")
    with pytest.raises(ClusterError, match="Received: no SLURM_STEP_TASKS_PER_NODE"):
        resolve()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ((2, 2, "n[1-2]", "1(x2)"), "SLURM_PROCID must be an integer from 0 to 1. Received: '2'"),
        (("x", 2, "n[1-2]", "1(x2)"), "Received: SLURM_PROCID=x, "),
        ((0, "x", "n[1-2]", "1(x2)"), "SLURM_STEP_NUM_TASKS=x, "),
        ((0, 2, "n[1-2", "1(x2)"), "Received: .*Invalid hostlist format"),
        ((0, 2, "n[1-2]", "a"), "Received: .*Invalid tasks-per-node"),
        ((0, 3, "n[1-2]", "1(x2)"), "Received: .*Requested 3 tasks but only 2"),
        ((0, 3, "n[1-2]", "1(x3)"), "Received: .*Requested 3 tasks but only 2"),
    ],
)
def test_unusable_slurm(monkeypatch, step, message):
    slurm(monkeypatch, *step)
    with pytest.raises(ClusterError, match=message):
        resolve("slurm")


def pod(name, ip, phase="Running", leaving=None):
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name, deletion_timestamp=leaving),
        status=SimpleNamespace(phase=phase, host_ip=ip),
    )


class Client:
    """The API of a cluster whose pods are others each time, the last ones from then on."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    def list_pod_for_all_namespaces(self, label_selector):
        self.asked.append(label_selector)
        return SimpleNamespace(items=self.answers[min(len(self.asked), len(self.answers)) - 1])


A, B = pod("train-a", "10.0.0.9"), pod("train-b", "10.0.0.2")


@pytest.mark.parametrize(("ip", "task"), [("10.0.0.9", 0), ("10.0.0.2", 1)])
def test_kubernetes(monkeypatch, caplog, ip, task):
    monkeypatch.setenv("HOST_IP", ip)
    client = Client([B, A])
    found = seen(kubernetes_job("train", 2, 2222, client))
    assert found == ({"worker": ["10.0.0.9:2222", "10.0.0.2:2222"]}, "worker", task)
    assert (client.asked, caplog.records) == (["job-name=train"], [])


def test_kubernetes_with_ipv6(monkeypatch):
    monkeypatch.setenv("HOST_IP", "fd00::2")
    found = seen(kubernetes_job("train", 2, 2222, Client([pod("train-0", "fd00::1"), pod("train-1", "fd00::2")])))
    assert found == ({"worker": ["[fd00::1]:2222", "[fd00::2]:2222"]}, "worker", 1)


def test_kubernetes_waits_for_late_pods(monkeypatch, caplog):
    monkeypatch.setenv("HOST_IP", "10.0.0.2")
    pauses = []
    monkeypatch.setattr(clusters.time, "sleep", pauses.append)
    client = Client([A], [A, pod("train-b", None, "Pending")], [A, B])
    with caplog.at_level(logging.WARNING):
        assert kubernetes_job("train", 2, 4000, client).task_id == 1
    assert [record.getMessage() for record in caplog.records if record.name == "training.distribute.clusters"] == [
        "Waiting for the workers of train: 1 of 2 running, 1 pods in all"
    ]
    assert (len(client.asked), pauses) == (3, [5, 5])


@pytest.mark.parametrize(
    "old",
    [
        pod("train-0", "10.0.0.1", "Failed"),
        pod("train-0", "10.0.0.1", "Succeeded"),
        pod("train-0", "10.0.0.1", leaving=1),
    ],
)
def test_kubernetes_takes_no_pods_of_earlier_attempts(monkeypatch, old):
    monkeypatch.setenv("HOST_IP", "10.0.0.2")
    found = seen(kubernetes_job("train", 2, 1, Client([old, A, B]), limit=0))
    assert found == ({"worker": ["10.0.0.9:1", "10.0.0.2:1"]}, "worker", 1)


@pytest.mark.parametrize(
    ("pods", "message"),
    [
        ([], "0 of 2 running, 0 pods in all"),
        ([A], "1 of 2 running, 1 pods in all"),
        ([A, pod("train-b", None, "Pending")], "1 of 2 running, 2 pods in all; train-b is Pending"),
        ([A, B, pod("train-c", "10.0.0.3")], "3 of 2 running, 3 pods in all"),
    ],
)
def test_kubernetes_waits_no_longer_than_its_limit(monkeypatch, pods, message):
    monkeypatch.setenv("HOST_IP", "10.0.0.9")
    with pytest.raises(ClusterError, match=f"workers of train must run within 0.05 s. Received: {message}$"):
        kubernetes_job("train", 2, 2222, Client(pods), limit=0.05, pause=0.01)


def test_kubernetes_does_not_know_this_node(monkeypatch):
    client = Client([A, B])
    with pytest.raises(ClusterError, match="HOST_IP must be set in the manifest, from status.hostIP"):
        kubernetes_job("train", 2, 2222, client)
    assert client.asked == []
    monkeypatch.setenv("HOST_IP", "10.0.0.1")
    with pytest.raises(ClusterError, match="Received: 10.0.0.1, workers 10.0.0.9:2222, 10.0.0.2:2222"):
        kubernetes_job("train", 2, 2222, client)


def test_kubernetes_pods_share_a_node(monkeypatch):
    monkeypatch.setenv("HOST_IP", "10.0.0.9")
    with pytest.raises(ClusterError, match="its own address. Received: 10.0.0.9:2222, 10.0.0.9:2222"):
        kubernetes_job("train", 2, 2222, Client([A, pod("train-b", "10.0.0.9")]))


@pytest.fixture
def package(monkeypatch):
    """The package kubernetes, in a pod."""
    package = ModuleType("kubernetes")
    package.done = []
    package.config = SimpleNamespace(
        ConfigException=type("ConfigException", (Exception,), {}),
        load_incluster_config=lambda: package.done.append("configuration"),
        load_kube_config=lambda: pytest.fail("looked for a user's configuration"),
    )
    package.client = SimpleNamespace(CoreV1Api=lambda: package.done.append("client") or Client([A, B]))
    monkeypatch.setitem(sys.modules, "kubernetes", package)
    monkeypatch.setenv("HOST_IP", "10.0.0.2")
    return package


@pytest.mark.parametrize(("options", "port"), [("", 2222), (",port=4000", 4000)])
def test_kubernetes_description(package, options, port):
    workers = [f"10.0.0.9:{port}", f"10.0.0.2:{port}"]
    assert seen(resolve(POD + options)) == ({"worker": workers}, "worker", 1)
    assert package.done == ["configuration", "client"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "cluster must be tf_config.*Received: 'kubernetes:'"),
        ("job-name=train", "cluster must be"),
        ("workers=2", "cluster must be"),
        ("job-name=,workers=2", "cluster must be"),
        ("job-name=train,workers=2,jobs=3", "cluster must be"),
        ("job-name=train,workers=2,port=1,port=2", "cluster must be"),
        ("job-name=train,workers=0", "workers must be an integer.*Received: '0'"),
        ("job-name=train,workers=x", "workers must be an integer.*Received: 'x'"),
        ("job-name=train,workers=2,port=", "port must be an integer from 1 to 65535. Received: ''"),
        ("job-name=train,workers=2,port=70000", "port must be an integer from 1 to 65535. Received: '70000'"),
    ],
)
def test_unusable_kubernetes_description(package, options, message):
    with pytest.raises(ClusterError, match=message):
        resolve(f"kubernetes:{options}")
    assert package.done == []


def test_kubernetes_package_missing(monkeypatch, package):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ClusterError, match="pip install kubernetes"):
        resolve(POD)


def test_kubernetes_outside_of_a_pod(package):
    def fail():
        raise package.config.ConfigException("Service host/port is not set.")

    package.config.load_incluster_config = fail
    with pytest.raises(ClusterError, match="in a pod. Received: Service host/port is not set."):
        resolve(POD)


def test_tpu(monkeypatch):
    local = tpu()
    assert (local.master(), local.cluster_spec().as_dict()) == ("", {})
    assert tpu("grpc://10.0.0.5:8470").cluster_spec().as_dict() == {"worker": ["10.0.0.5:8470"]}
    monkeypatch.setenv("TPU_NAME", "grpc://10.0.0.6:8470")
    assert tpu().master() == "grpc://10.0.0.6:8470"
    assert tpu("local").master() == ""


def test_cloud_tpu_out_of_reach(monkeypatch):
    def refuse(request, *_, **__):
        raise urllib.error.URLError("no such host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ClusterError, match="TPU that can be reached. Received: 'mine' .*no such host"):
        tpu("mine")
    with pytest.raises(ClusterError, match="Received: '' .*provide a TPU Name"):
        tpu("")


@pytest.mark.parametrize("step", ["__init__", "master"])
@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("x"), ImportError("x"), OSError("x"), tf.errors.NotFoundError(None, None, "x")],
    ids=lambda error: type(error).__name__,
)
def test_tpu_fails(monkeypatch, step, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(tf.distribute.cluster_resolver.TPUClusterResolver, step, fail)
    with pytest.raises(ClusterError, match="Received: 'local' .*x") as raised:
        tpu()
    assert raised.value.__cause__ is error
