"""Turns files and arrays into augmented batches.

    images/       images with one class each
    scenes/       images with a class for each pixel
    boxes/        images with boxes
    source        the interface between data and training, a Protocol
    pictures      what sources of stored pictures share
    loader        batches with tf.data: order, resuming, pictures in parallel
    faults        unreadable pictures: logged, counted, too many
    headers       finds unreadable files before a run begins
    file_rows     pictures stored as files
    tfds_rows     pictures stored in TensorFlow Datasets
    splits        which pictures are held out for validation
    reading       how a recipe reads pictures
    shares        the part of each batch that a worker loads
    draws         random numbers that depend only on the seed and the position
    rescaled_part a rescaled part of a picture
    compiled      compiles a function, on backends that have graphs
    errors        how messages quote names

A picture is a stored image, e.g. a file; an image is the tensor that a model gets. In each of the three folders, `task`
says how a row becomes an example, `folders` and `tfds` where rows come from, and `sources` opens the data that a recipe
names. A source has rows and a loader of these rows, to which it gives the functions of its task.
"""
