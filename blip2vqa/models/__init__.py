"""The supported architectures, each as stages that may start from what the one before it left on disk.

What the rest of the house asks of a generative one: `encode` (picture, or a kept stage → what does not depend on the question),
`forward(…, keep=)` (logits where an answer is), `generation_inputs`, and `language_model`, which generates.
"""
