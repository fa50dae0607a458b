"""The model zoo: the table people read, the check of the published weights, and our own weights with their cards."""
