"""Export to SavedModels, with one signature for each kind of request."""
