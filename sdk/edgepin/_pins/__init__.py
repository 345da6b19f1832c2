"""The protocols of Learnable PINs (Nagrani, Albanie and Zisserman 2018) on embeddings and lists: `evaluate_pins`.

Only numpy is used. `lists` reads the official lists, `verification`, `matching`, `retrieval`, `naming` and `clustering` make
one table each, `draws` resamples identities for their intervals, and `evaluate` puts them together.
"""
