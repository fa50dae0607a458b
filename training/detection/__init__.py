"""Object detection: pictures with boxes, what is done to them in training, and COCO's figures."""
