"""The application around the library: run it from a checkout, `python -m training ...`.

Where what is:

    commands        pretrain, finetune, evaluate, segment, detect, analyze, report, quickstart; commands, options
    recipes         recipe (fields), recipes (rows), dense (what segmentation and detection have in common), stems
    the loop        loop, callbacks, schedules, checkpoints, runs (a run's folder), results (what a run leaves)
    data/           sources, pipelines, augmentation
    distribute/     strategies, clusters, workers that meet, die or are preempted
    pictures        figures, pictures, predictions, reports/, analysis/
    dense tasks     segmentation/, detection/

What says so imports no TensorFlow, and runs on any backend of Keras.
"""
