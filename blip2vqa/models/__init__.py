"""The supported models, a module for each in `families`, and what turns words into ids and ids into answers for them.

A model that writes its answers offers `encode` (a picture, or a stage kept of it → what does not depend on the question),
`forward(…, keep=)` (logits where an answer is), `generation_inputs`, and `language_model`, which generates.
"""
