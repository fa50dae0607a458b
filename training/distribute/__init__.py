"""One device or many, one machine or many.

strategies      which tf.distribute strategy
clusters        who the workers are: a list of hosts, TF_CONFIG, SLURM, Kubernetes, TPU
rendezvous      workers meet before TensorFlow's own wait
devices         what training asks of its devices: data of replicas, agreement, who died
preemption      SIGTERM: all workers save and end at the same step
"""
