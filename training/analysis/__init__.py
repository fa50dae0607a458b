"""Looking into a model, as the paper does: what its layers hold, how alike their channels are, and what for."""
