"""The application around the library: run it from a checkout, `python -m training ...`."""
