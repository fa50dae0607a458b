"""The model zoo: a table of all published weights, a check of them, and our own weights with their model cards."""
