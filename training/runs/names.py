"""Names of the files in a run's folder."""

CONFIG, METRICS = "config.json", "metrics.json"

# Kind of a run, the name of its recipe's class -> file with its trained model.
MODELS = {
    "Pretraining": "fcmae.keras",
    "Finetuning": "classifier.keras",
    "Segmentation": "segmenter.keras",
    "Detection": "detector.keras",
}

# The model of the best epoch so far.
BEST = "best.keras"

CHECKPOINTS = "checkpoints/step-*.safetensors"
