"""What the tiny bases read and write: texts about scenes, and the tokenizers trained on them."""

import random
import re
from collections import Counter
from math import log

from scene_texts import CAPTION_PROMPTS, QUESTION_PROMPTS, ask, caption
from scenes import Scene
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

FAMILIES = ("opt", "flan-t5")
ORDINARY_WORDS = """
the be to of and a in that have it for not on with as you do at this but by from they we say or an will my one all
would there their what so up out if about who get which go me when make can like time no just know take into your good
some could them see other than then now look only come its over think also back after use two how our work first well
way even new want because any these give day most us is are was were has had did does been being am where why whose
color colour shape size number kind type name left right top bottom middle center corner side above below under behind
front near next between inside outside small big large tiny huge long short tall wide thick thin round flat light dark
bright pale red green blue yellow orange purple pink brown black white gray grey teal crimson scarlet azure navy gold
golden silver violet lime olive beige cyan magenta maroon circle square rectangle triangle diamond star cross ring
oval heart arrow line dot box disc ball block pyramid plus hexagon shape object thing item figure picture image photo
drawing scene photograph visible shown present absent missing contain contains include includes show shows appear
appears find count many much more less few none nothing nobody each every both either neither same different equal
background material made wood metal glass cloth paper plastic leather stone style describe description short word
words sentence question answer title caption story poem please tell person man woman child people boy girl dog cat
bird horse animal car bus train boat plane bicycle street house room kitchen table chair bed bottle cup plate food
fruit apple banana pizza tree flower grass water sky sun moon snow rain sea beach mountain sport game phone book clock
window door wall floor hat shirt shoe bag yes no maybe zero one two three four five six seven eight nine ten 0 1 2 3 4
5 6 7 8 9 10
""".split()

ECHO_PROMPTS = ("Repeat: {words}", "Question: what did he say: {words}? Answer:", "Say {words} again:")
ENDINGS = "s es ed er est ing ly al ion tion ment ness able en on in an ar or le re un".split()
NEGATIONS = re.compile(r"\b(no|not|lack|missing|absent|without|free)\b")


def made_up_word(rng: random.Random) -> str:
    """Two to six letters that can be read aloud."""
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))


def echo_text(rng: random.Random) -> tuple[str, str, str]:
    """Words to repeat, so that the language model can write all of its vocabulary, not just the words about scenes."""
    words = [rng.choice(ORDINARY_WORDS) if rng.random() < 0.7 else made_up_word(rng) for _ in range(rng.randint(1, 3))]
    words = [word.capitalize() if rng.random() < 0.1 else word for word in words]
    return "echo", rng.choice(ECHO_PROMPTS).format(words=" ".join(words)), " ".join(words)


def sample_text(
    scene: Scene, rng: random.Random, questions: float, negated: float = 1.0, echoes: float = 0.0
) -> tuple[str, str, str]:
    """A kind, a prompt and its target text; `questions` is the share of questions, `negated` of the negated ones kept.

    Negation is best met late: as long as "is there" and "is there no" are as frequent, what is there says nothing
    about the answer.
    """
    if rng.random() < echoes:
        return echo_text(rng)
    if rng.random() < questions:
        kind, question, answer = ask(scene, rng)
        while NEGATIONS.search(question) and rng.random() > negated:
            kind, question, answer = ask(scene, rng)
        if rng.random() < 0.3:
            question = question[0].upper() + question[1:]
        return kind, rng.choice(QUESTION_PROMPTS).format(question=question), answer
    style = rng.choices(tuple(CAPTION_PROMPTS), (6, 2, 2))[0]
    return style, rng.choice(CAPTION_PROMPTS[style]), caption(scene, rng, style)


def train_tokenizer(family: str, scenes: list[Scene], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level pairs with `</s>` in front for OPT; pieces of words with `</s>` at the end for T5."""
    rng = random.Random(seed)
    texts = [" ".join(sample_text(scene, rng, 0.7)[1:]) for scene in scenes]
    texts += [" " + word for word in ORDINARY_WORDS for _ in range(4)] + [w.capitalize() for w in ORDINARY_WORDS]
    if family == "opt":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        inner.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=1400, special_tokens=special, initial_alphabet=alphabet, show_progress=False,
        ))  # fmt: skip
        inner.post_processor = processors.TemplateProcessing(
            single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", special.index("</s>"))]
        )
        names = {"bos_token": "</s>", "padding_side": "left"}
    else:
        special = ["<pad>", "</s>", "<unk>", "<image>"]
        counts = Counter("▁" + word for text in texts for word in re.findall(r"\w+", text))
        letters = [chr(code) for code in (*range(33, 127), *range(0xA1, 0x100))]
        pieces = [(word, log(count / counts.total())) for word, count in sorted(counts.items())]
        pieces += [(ending, -14.0) for ending in ENDINGS] + [(letter, -18.0) for letter in ["▁", *letters]]
        inner = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, unk_id=2))
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        inner.decoder = decoders.Metaspace(prepend_scheme="always")
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", special.index("</s>"))]
        )
        names = {"padding_side": "right"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=240,
        clean_up_tokenization_spaces=False, **names,
    )  # fmt: skip
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def end_token(family: str, tokenizer: PreTrainedTokenizerFast) -> int:
    """What the language model closes an answer with: the line feed for OPT, as on the Hub, `</s>` for T5."""
    return tokenizer.convert_tokens_to_ids("Ċ" if family == "opt" else "</s>")
