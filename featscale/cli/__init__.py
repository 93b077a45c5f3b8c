"""The doors: the `featscale` command and what `train.py` needs of Hydra."""
