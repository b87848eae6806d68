"""Which linear layer does which job in the transformers that the families are made of: role → ends of module names.

The ends are regular expressions. They are not enough alone: OPT's `fc1` is also the name of a layer of the vision tower, so
modules are always looked for inside the part that they belong to.
"""

VISION = {
    "q": ("qkv",), "k": ("qkv",), "v": ("qkv",), "o": (r"self_attn\.projection",), "up": ("fc1",), "down": ("fc2",),
}  # fmt: skip
BERT = {
    "q": ("query",), "k": ("key",), "v": ("value",), "o": (r"(?:cross)?attention\.output\.dense",),
    "up": (r"intermediate\.dense",), "down": (r"\d+\.output\.dense",),
}  # fmt: skip
OPT = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("out_proj",), "up": ("fc1",), "down": ("fc2",)}
T5 = {"q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "up": ("wi_1",), "gate": ("wi_0",), "down": ("wo",)}
LLAMA = {
    "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj",),
    "gate": ("gate_proj",), "up": ("up_proj",), "down": ("down_proj",),
}  # fmt: skip
