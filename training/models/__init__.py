"""From a recipe to the model that it trains."""
