"""Training on several devices: what Keras lacks for it, and sums over replicas."""

from keras_cnv2.distribute.multi_worker import enable_multi_worker as enable_multi_worker
