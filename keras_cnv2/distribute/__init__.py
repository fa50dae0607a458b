"""Training on several devices: support for several workers, which Keras lacks, and sums over replicas."""

from keras_cnv2.distribute.multi_worker import enable_multi_worker as enable_multi_worker
