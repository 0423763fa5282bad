"""AMA-SAM: adversarial multi-domain alignment of SAM for nuclei segmentation, with its training and evaluation."""
