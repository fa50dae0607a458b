"""One device or many, one machine or many.

strategies      chooses a tf.distribute strategy
clusters        finds the workers: a list of hosts, TF_CONFIG, SLURM, Kubernetes, TPU
rendezvous      waits until all workers are there, before TensorFlow connects them
devices         what training needs from its devices: data for replicas, agreement, errors that name dead workers
preemption      on SIGTERM or Ctrl-C, all workers save and end at the same step
"""
