"""The model zoo: the table people read, and the check of the published weights."""
