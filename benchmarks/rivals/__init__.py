"""Other implementations, one file each. Like `benchmarks.ours`, they define contestants, see `benchmarks.workers`."""
