"""The tiny world: a closed vocabulary, its prompts, its texts and its truth.

It has a room of its own, apart from ``data`` (which reads and batches preference pairs of any
origin), because it is the experiment and not the method: nothing in the derivation depends on it.
"""
