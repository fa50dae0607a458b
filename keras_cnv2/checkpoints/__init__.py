"""Loading and saving of weights: files, naming dialects, strict conversion."""

from keras_cnv2.checkpoints.load import load_checkpoint as load_checkpoint
from keras_cnv2.checkpoints.named_arrays import state_dict as state_dict
from keras_cnv2.checkpoints.write import save_checkpoint as save_checkpoint
from keras_cnv2.errors import CheckpointError as CheckpointError
