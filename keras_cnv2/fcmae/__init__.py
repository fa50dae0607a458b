"""Fully convolutional masked autoencoder: self-supervised pre-training for ConvNeXt V2."""

from keras_cnv2.fcmae.model import FCMAE as FCMAE
