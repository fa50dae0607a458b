"""ConvNeXt V2 as a classifier and as a backbone, on one graph of stem and stages."""
