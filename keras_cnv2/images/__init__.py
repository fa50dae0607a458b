"""Images: encoded bytes to pixels, pixels to normalized values, and the names of classes."""
