"""The application around the library: run it from a checkout, `python -m training ...`.

Where what is:

    commands        pretrain, finetune, evaluate, segment, detect, analyze, report, quickstart, recipes (rows);
                    their common parts: commands, options, serve
    recipes         recipe (fields), dense (what segmentation and detection have in common), stems
    the loop        loop, callbacks, schedules, checkpoints, runs (a run's folder), results (what a run leaves),
                    system (the machine)
    data/           sources, pipelines, augmentation
    distribute/     strategies, clusters, workers that meet, die or are preempted
    pictures        figures, pictures, predictions, reports/, analysis/
    dense tasks     segmentation/, detection/

What says so imports no TensorFlow, and runs on any backend of Keras.
"""
