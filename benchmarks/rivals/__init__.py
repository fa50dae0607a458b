"""Other implementations, one file each, with the functions of `benchmarks.ours`: a task to a function that runs it."""
