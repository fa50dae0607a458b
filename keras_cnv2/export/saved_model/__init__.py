"""SavedModels: a signature for each way in which a model is served."""
