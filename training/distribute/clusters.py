"""Finds the workers of a run: turns the description of a cluster into a cluster resolver."""

import logging
import os
import re
import time
from contextlib import suppress
from types import SimpleNamespace

logger = logging.getLogger(__name__)

FORMS = "tf_config, slurm[:PORT], kubernetes:job-name=NAME,workers=N[,port=P] or HOST:PORT,HOST:PORT,..."
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
FINISHED = ("Succeeded", "Failed")


class ClusterError(ValueError):
    """A cluster that cannot be found, or that does not include this process."""


def resolve(cluster=None, task=None):
    """Finds the workers of a run, and which of them this process is.

    Args:
        cluster: "tf_config", "slurm", "slurm:PORT", "kubernetes:job-name=NAME,workers=N[,port=P]", or a list of the
            workers, "HOST:PORT,HOST:PORT,...". `None` uses TF_CONFIG, or else SLURM.
        task: Int, the index of this worker in the list. Give it only with a list.

    Returns:
        A `SimpleClusterResolver` for `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        ClusterError: If the workers cannot be found, or this process is not one of them.
    """
    if cluster is None and (cluster := kind_here()) is None:
        raise ClusterError(f"cluster must be {FORMS}. Received: none, and no cluster in TF_CONFIG or SLURM")
    kind, colon, rest = cluster.partition(":")
    if colon and kind not in ("tf_config", "slurm", "kubernetes"):
        if not isinstance(task, int) or isinstance(task, bool):
            raise ClusterError(f"task must be an integer, which of the hosts this is. Received: task={task!r}")
        return _resolver({"worker": [address.strip() for address in cluster.split(",")]}, "worker", task)
    if task is not None:
        raise ClusterError(f"task must come with a list of hosts. Received: task={task!r}, cluster={cluster!r}")
    if kind == "tf_config" and not colon:
        return _tf_config()
    if kind == "slurm":
        return _slurm(_number("The port of slurm:PORT", rest) if colon else 8888)
    if job := re.fullmatch(r"kubernetes:job-name=([^,=]+),workers=([^,]*)(?:,port=([^,]*))?", cluster):
        return kubernetes_job(job[1], _number("workers", job[2]), _number("port", "2222" if job[3] is None else job[3]))
    raise ClusterError(f"cluster must be {FORMS}. Received: {cluster!r}")


def addresses(resolver):
    """Returns the "host:port" of all workers in order, with the chief first if there is one."""
    jobs = resolver.cluster_spec().as_dict()
    return [address for job in ("chief", "worker") for address in jobs.get(job, ())]


def tpu(name=None):
    """Returns a `TPUClusterResolver` for "local", "grpc://HOST:PORT" or the name of a Cloud TPU.

    `None` uses TPU_NAME, or else "local". Raises a `ClusterError` if the TPU cannot be reached.
    """
    import tensorflow as tf

    name = (os.environ.get("TPU_NAME") or "local") if name is None else name
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        resolver.master()  # The constructor does not yet look up the TPU; this call does.
    except (ValueError, RuntimeError, tf.errors.OpError, ImportError, OSError) as error:
        raise ClusterError(f"tpu must be a TPU that can be reached. Received: {name!r} ({error})") from error
    return resolver


def kind_here():
    """Returns the kind of cluster that the environment describes, or `None`."""
    if '"cluster"' in os.environ.get("TF_CONFIG", ""):
        return "tf_config"
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return "slurm"
    return None


def _number(name, text, low=1, high=65535):
    """Converts text to an integer within limits, by default those of a port."""
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ClusterError(f"{name} must be an integer from {low} to {high}. Received: {text!r}")
    return int(text)


def _resolver(jobs, task_type, task_id):
    """Checks the workers, for all kinds of clusters, and returns their resolver."""
    import tensorflow as tf

    if not {task_type, *jobs} <= {"chief", "worker"} or len(jobs.get("chief", ())) > 1:
        raise ClusterError(f"Tasks must be workers and at most one chief. Received: {jobs}, task type {task_type}")
    workers = [address for tasks in jobs.values() for address in tasks]
    for address in workers:
        if not re.fullmatch(r"[^\s/,]+:[^:]*", address):
            raise ClusterError(f"A worker must be HOST:PORT. Received: {address!r} among {workers}")
        if _bracketed(address) != address:
            raise ClusterError(f"A worker at an IPv6 address must be [ADDRESS]:PORT. Received: {address!r}")
        _number(f"The port of {address!r}", address.rpartition(":")[2])
    if len(set(workers)) < len(workers):
        raise ClusterError(f"Each worker must have its own address. Received: {', '.join(workers)}")
    if task_id not in range(len(jobs.get(task_type, ()))):
        raise ClusterError(f"The task must be one of the {task_type}s, from 0. Received: {task_id} of {jobs}")
    # The resolvers count GPUs wrongly. The one for Slurm returns the number it was given, even on nodes without GPUs;
    # the one for Kubernetes lists TensorFlow's devices, which starts the runtime before the strategy configures it.
    gpus = {"GPU": len(tf.config.list_physical_devices("GPU"))}
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs), task_type=task_type, task_id=task_id, num_accelerators=gpus, rpc_layer="grpc"
    )


def _bracketed(address):
    """Returns HOST:PORT with brackets around an IPv6 address, which separate it from the port."""
    host, _, port = address.rpartition(":")
    return f"[{host}]:{port}" if ":" in host and not re.fullmatch(r"\[.*\]", host) else address


def _tf_config():
    """Returns a resolver for TF_CONFIG."""
    import tensorflow as tf

    found, text = tf.distribute.cluster_resolver.TFConfigClusterResolver(), os.environ.get("TF_CONFIG", "")
    try:
        jobs, task_type, task_id = found.cluster_spec().as_dict(), found.task_type, found.task_id
    except (ValueError, TypeError) as error:
        raise ClusterError(f"TF_CONFIG must be JSON with cluster and task. Received: {text!r} ({error})") from error
    if not jobs or not all(isinstance(tasks, list) for tasks in jobs.values()):
        raise ClusterError(f"TF_CONFIG must have a cluster, with a list of HOST:PORT for each job. Received: {text!r}")
    if task_type is None or task_id is None:
        raise ClusterError(f"TF_CONFIG must have a task, with type and index. Received: {text!r}")
    return _resolver(jobs, task_type, task_id)


def _slurm(port):
    """Returns a resolver for the tasks of a SLURM step."""
    import tensorflow as tf

    if missing := [name for name in SLURM if not os.environ.get(name)]:
        raise ClusterError(f"cluster=slurm must be in a step that srun started. Received: no {', '.join(missing)}")

    class InOrder(tf.distribute.cluster_resolver.SlurmClusterResolver):
        # TensorFlow's resolver sorts hosts as strings, node10 before node2. SLURM ranks tasks in the order of its list.
        def _resolve_task_configuration(self):
            hosts = super()._resolve_task_configuration()
            return {f"{i:08}/{host}": tasks for i, (host, tasks) in enumerate(hosts.items())}

    try:
        # A GPU count above any number of tasks per node: with 0 the resolver fails, without one it calls nvidia-smi.
        # The actual assignment of GPUs to tasks is done by SLURM.
        found = InOrder(port_base=port, gpus_per_node=1_000_000, gpus_per_task=1, auto_set_gpu=False)
        workers = [address.rpartition("/")[2] for address in found.cluster_spec().as_dict()["worker"]]
    except (RuntimeError, ValueError) as error:
        received = ", ".join(f"{name}={os.environ[name]}" for name in SLURM)
        raise ClusterError(f"The SLURM step must list its nodes and tasks. Received: {received} ({error})") from error
    rank = _number("SLURM_PROCID", os.environ["SLURM_PROCID"], 0, len(workers) - 1)
    host, node = workers[rank].rpartition(":")[0], os.environ.get("SLURMD_NODENAME")
    if node and host.partition(".")[0] != node.partition(".")[0]:
        must = "Tasks must be ranked node by node: use srun --distribution=block, or give a list of hosts"
        raise ClusterError(f"{must}. Received: SLURM_PROCID={rank}, on {node}, but on {host} by the list of nodes")
    return _resolver({"worker": workers}, "worker", rank)


def kubernetes_job(name, workers, port, client=None, limit=3600, pause=5):
    """Finds the pods of a job, one pod per node. Waits until all are running.

    Args:
        name: The job's name.
        workers: Int, the number of pods.
        port: Int, the port of all workers.
        client: The client of the cluster, by default that of the package kubernetes in a pod.
        limit: Maximum time to wait, in seconds.
        pause: Seconds between two looks.

    Returns:
        A `SimpleClusterResolver`.

    Raises:
        ClusterError: If not all pods run in time, or this process is in none of them.
    """
    import tensorflow as tf

    if not (own := os.environ.get("HOST_IP")):
        raise ClusterError("HOST_IP must be set in the manifest, from status.hostIP. Received: no HOST_IP")
    client, pods = client or _kubernetes_client(), []

    def unfinished(label_selector):
        # Pods of earlier attempts stay in the list; the resolver would wait until they run.
        found = client.list_pod_for_all_namespaces(label_selector=label_selector).items
        pods[:] = [p for p in found if p.status.phase not in FINISHED and not p.metadata.deletion_timestamp]
        return SimpleNamespace(items=pods)

    found = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [f"job-name={name}"]}, port, override_client=SimpleNamespace(list_pod_for_all_namespaces=unfinished)
    )
    end, hosts, warned = time.monotonic() + limit, [], False
    while len(hosts) != workers:
        with suppress(RuntimeError):  # raised while a pod is not running yet
            hosts = [_bracketed(address) for address in found.cluster_spec().as_dict()["worker"]]
        if len(hosts) != workers:
            late = [f"{pod.metadata.name} is {pod.status.phase}" for pod in pods if pod.status.phase != "Running"]
            state = "; ".join([f"{len(pods) - len(late)} of {workers} running, {len(pods)} pods in all", *late])
            if time.monotonic() >= end:
                raise ClusterError(f"All workers of {name} must run within {limit} s. Received: {state}")
            if not warned:
                logger.warning("Waiting for the workers of %s: %s", name, state)
            warned = True
            time.sleep(pause)
    here = _bracketed(f"{own}:{port}")
    if here not in hosts:
        raise ClusterError(f"HOST_IP must be a worker's node. Received: {own}, workers {', '.join(hosts)}")
    return _resolver({"worker": hosts}, "worker", hosts.index(here))


def _kubernetes_client():
    """Returns a client of the cluster that this pod runs in; the resolver's default reads a user's configuration."""
    try:
        import kubernetes

        kubernetes.config.load_incluster_config()
    except ImportError as error:
        raise ClusterError("The package kubernetes is missing: pip install kubernetes. Received: none") from error
    except kubernetes.config.ConfigException as error:
        raise ClusterError(f"cluster=kubernetes must be used in a pod. Received: {error}") from error
    return kubernetes.client.CoreV1Api()
