"""Folders in the layouts of transformers, timm and Keras, as the hub's repositories hold them: written, uploaded."""
