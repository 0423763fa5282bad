"""nn.Modules of AMA-SAM."""
