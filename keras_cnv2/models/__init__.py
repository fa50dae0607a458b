"""ConvNeXt V2 as a classifier and as a backbone, both built on the same graph of stem and stages."""
