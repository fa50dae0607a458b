"""The application around the library: `keras-cnv2 finetune ...`, or `python -m training finetune ...` in a checkout.

Map of the package. Each room imports only from rooms above it:

    errors          what ends a command with a message
    files           JSON and text files
    drawing/        pictures of runs, models and predictions
    analysis/       what a model's layers hold and what its classes answer to
    models/         from a recipe to its model
    recipes/        fields and rows
    data/           files and arrays to augmented batches
    distribute/     strategies, clusters, workers that meet, die or are preempted
    loop/           strategy, fit, checkpoints, going on
    evaluation/     scores of classifiers, segmenters and detectors
    runs/           a run's folder, its results, the machine
    reports/        a page about runs
    commands/       one file for each command, and what starts a run

Modules whose docstring says "imports no TensorFlow" run on any backend of Keras. In the wheel this package is called
keras_cnv2_training.
"""
