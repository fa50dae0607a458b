"""Files and arrays to augmented batches.

    images/       images with a class each
    scenes/       images with a class for each pixel
    boxes/        images with boxes
    source        what training asks of data, a Protocol
    loader        batches with tf.data: order, resuming, unreadable pictures
    headers       which files cannot be read, before a run begins
    file_rows     how pictures are kept as files; tfds_rows: in TensorFlow Datasets; splits: what is held out
    reading       how the pictures of a recipe are read
    shares        the part of each batch that a worker loads
    draws         random numbers that depend on the seed and the position alone
    rescaled_part a part of a picture, rescaled
    compiled      a function as a graph, where the backend has graphs
    errors        how messages quote names

In each of the three folders, `task` says what becomes of a row, `sources` opens what a user wrote.
"""
