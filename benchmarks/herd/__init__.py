"""Many processes want more calls than an upstream serves: what each way of dealing with its 429s costs.

A local HTTP upstream that really refuses, and a fleet of processes that makes the same calls in five ways, one after
the other, each on an upstream of its own. Not a figure of ``python -m benchmarks``: it takes minutes.
"""
