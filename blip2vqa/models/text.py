"""Questions and answers → tensors of token ids, for training and for generation.

Causal (OPT):   `<image>` × num_query_tokens, start token, prompt, answer, end token; supervised: answer and end token.
Seq2seq (T5):   encoder `<image>` × num_query_tokens, prompt, end token; decoder: answer, end token, all supervised.

A family whose picture does not stand in the text has no image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from blip2vqa.data.examples import Example
from blip2vqa.models.answer_lists import AnswerTree
from blip2vqa.utils.errors import InputError

IMAGE_TOKEN = "<image>"
IGNORE = -100  # label of a position without a target, as cross_entropy and transformers have it
_ANCHOR = "a"  # a word in front, behind which a word is tokenized as a continuation


@dataclass(frozen=True)
class PromptEncoder:
    """Tokenizes prompts for one base; used alike for training and for inference."""

    tokenizer: PreTrainedTokenizerBase
    prompt: str
    """With {question} in it where there is one."""
    max_positions: int | None = None
    """Longest row in tokens, image tokens included."""
    answers: tuple[str, ...] = ()
    """The only answers that it may give; empty: any."""

    answers_with: ClassVar[str]
    """How the base answers: `tokens`, which it writes, or `classes`, outputs of a head, among which it chooses."""

    @property
    def shares_image(self) -> bool:
        """Whether a row may begin with a picture's tokens, the same for all questions about it."""
        return False

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id

    def fill(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> list[str]:
        """Put the prompt around each question; `prompts`: one for each question instead."""
        prompts = prompts or [self.prompt] * len(questions)
        return [prompt.replace("{question}", question) for prompt, question in zip(prompts, questions, strict=True)]

    def prompt_ids(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> list[list[int]]:
        """Tokenize prompts, with the tokenizer's own start or end token around them, unpadded."""
        # The tokenizer alone, not the processor: without images that subtracts the query tokens from max_length.
        texts = self.fill(questions, prompts)
        return self.tokenizer(texts, add_special_tokens=True, return_token_type_ids=False)["input_ids"]

    def prompt_lengths(self, questions: Sequence[str]) -> list[int]:
        """Count the tokens of each prompt, image tokens included; a thousand at a time, since tokens take memory."""
        chunks = (questions[start : start + 1024] for start in range(0, len(questions), 1024))
        return [len(ids) for chunk in chunks for ids in self.prompt_ids(chunk)]

    def pad_rows(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """Pad rows on the right → `input_ids` and `attention_mask` [rows, longest]."""
        return {"input_ids": self.pad_ids(rows), "attention_mask": pad([[1] * len(row) for row in rows], 0)}

    def pad_ids(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Pad rows on the right → `input_ids` [rows, longest]."""
        return pad(rows, self.pad_token_id)

    def check_lengths(self, examples: Sequence[Example], answer_room: int, tokens_per_row: int = 0) -> None:
        """Raise `InputError` for examples that this base cannot be given, the first ten named.

        `answer_room`: tokens of the longest answer that may be written. `tokens_per_row`: longest row that questions of one
        image share; 0: no bound.
        """
        problems = self.problems_of_all(examples, tokens_per_row)
        problems += [f"row {row}: {reason}" for row, reason in self.problems_by_row(examples, answer_room)]
        if problems:
            more = [f"… and {len(problems) - 10} more rows"] if len(problems) > 10 else []
            raise InputError(*problems[:10], *more)

    def problems_by_row(self, examples: Sequence[Example], answer_room: int) -> list[tuple[int, str]]:
        """List each problem of single examples, with the example's row."""
        return [(example.row, reason) for example in examples for reason in self.problems_of_row(example, answer_room)]

    def problems_of_all(self, examples: Sequence[Example], tokens_per_row: int) -> list[str]:
        """List the problems that are not of single examples; here there are none."""
        return []

    def problems_of_row(self, example: Example, answer_room: int) -> list[str]:
        """List the problems of one example: here, that it has more tokens than the model has positions."""
        limit = self.max_positions
        # Most rows need not be tokenized to be sure.
        if not limit or self.most_tokens(example) + answer_room <= limit:
            return []
        length = self.row_length(example, answer_room)
        problem = f"{length} tokens, but the base model has {limit} positions; shorten it"
        return [problem] if length > limit else []

    def most_tokens(self, example: Example) -> int:
        """Bound the tokens of a row from above: a token is at least one byte, and there are two around a text."""
        return len(self.prompt.encode()) + len(example.question.encode()) + 2

    def row_length(self, example: Example, answer_room: int) -> int:
        """Count the positions that an example takes."""
        return len(self.prompt_ids([example.question])[0])


@dataclass(frozen=True)
class TextEncoder(PromptEncoder):
    """Encodes text for a base that writes its answers."""

    seq2seq: bool = False
    """Whether a decoder answers what an encoder has read."""
    image_token_id: int | None = None
    num_query_tokens: int = 0
    """Image tokens in front of every prompt; 0: the picture does not stand in the text."""
    end_token_id: int | None = None
    start_token_id: int | None = None
    """What a decoder, or a text without the tokenizer's own marks around it, begins with."""

    answers_with = "tokens"

    @property
    def shares_image(self) -> bool:
        return not self.seq2seq and self.num_query_tokens > 0

    @property
    def pad_token_id(self) -> int:
        """Return the padding token's id, or the end token's where the tokenizer has none (old copies of LLaMA's)."""
        return self.end_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    @property
    def end_token(self) -> str:
        """The sign that ends an answer."""
        return self.tokenizer.decode([self.end_token_id])

    def constraint(self, answers: Sequence[str] | None = None) -> AnswerTree | None:
        """Restrict the base to `answers`, or else to the encoder's own `answers`; None where there are neither.

        Raises `InputError` for answers that this base cannot tell apart, or cannot end.
        """
        listed = tuple(answers or self.answers)
        if not listed:
            return None
        tree = AnswerTree(listed, self)
        tree.check()
        return tree

    def prompt_ids(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> list[list[int]]:
        """Tokenize prompts, with the image tokens and the start token, or the tokenizer's own marks, around them, unpadded."""
        if self.num_query_tokens or self.seq2seq:
            image = [self.image_token_id] * self.num_query_tokens
            return [image + row for row in super().prompt_ids(questions, prompts)]
        texts = self.fill(questions, prompts)
        ids = self.tokenizer(texts, add_special_tokens=False, return_token_type_ids=False)["input_ids"]
        return [[self.start_token_id, *row] for row in ids]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Tokenize answers, with their end token, unpadded. A causal model continues the prompt, hence the blank in front."""
        skip, texts = 0, list(answers)
        if not self.seq2seq:
            # Behind a word: a tokenizer like LLaMA's puts a blank of its own in front of a text that begins with none.
            skip = len(self.tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
            texts = [f"{_ANCHOR} {answer.strip()}" for answer in answers]
        ids = self.tokenizer(texts, add_special_tokens=False, return_token_type_ids=False)["input_ids"]
        return [[*row[skip:], self.end_token_id] for row in ids]

    def more_inputs(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Encode each prompt for other parts of the model that read it, too: here, there are none."""
        return {}

    def training_batch(self, questions: Sequence[str], answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode a batch: `input_ids`, `attention_mask`, `labels` (and `decoder_input_ids` for seq2seq), each [batch, longest].

        `labels` of a causal model are as long as `input_ids` and not shifted; of a seq2seq model, as the decoder's.
        """
        rows, labels = self.prompt_ids(questions), self.answer_ids(answers)
        more = self.more_inputs(questions)
        if self.seq2seq:
            decoded = pad([[self.start_token_id, *target] for target in labels], self.pad_token_id)
            more["decoder_input_ids"] = decoded[:, :-1]
        else:
            pairs = list(zip(rows, labels, strict=True))
            rows = [prompt + target for prompt, target in pairs]
            labels = [[IGNORE] * len(prompt) + target for prompt, target in pairs]
        return self.pad_rows(rows) | more | {"labels": pad(labels, IGNORE)}

    def shared_batch(self, groups: Sequence[Sequence[tuple[list[int], list[int]]]]) -> dict[str, torch.Tensor]:
        """Encode all questions of one image in one row of a causal model, as exact as one row each.

        `groups`: for each image, the pairs of `prompt_ids` and `answer_ids` of its questions.

        A row is the image tokens, then the questions with their answers one behind the other. Each question's positions
        go on from the image, and it sees the image and itself alone.

        Returns `input_ids`, `labels`, `position_ids` [rows, longest], and `attention_mask` bool [rows, 1, longest, longest].
        """
        image = [self.image_token_id] * self.num_query_tokens
        rows = []
        for pairs in groups:
            row = [(token, IGNORE, place, 0) for place, token in enumerate(image)]
            for number, (prompt, target) in enumerate(pairs, start=1):
                tokens = prompt[len(image) :] + target
                labels = [IGNORE] * (len(tokens) - len(target)) + target
                row += [
                    (token, label, place, number)
                    for place, (token, label) in enumerate(zip(tokens, labels, strict=True), start=len(image))
                ]
            rows.append(zip(*row, strict=True))
        ids, labels, positions, segments = zip(*rows, strict=True)
        segment = pad(segments, -1)  # [rows, longest]: 0 the image, 1 … the questions, -1 padding
        one, other = segment.unsqueeze(2), segment.unsqueeze(1)
        causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
        # Padding sees itself, as a row that sees nothing would come out as not-a-number.
        seen = causal & ((one == other) | (other == 0) & (one > 0))
        batch = {"input_ids": self.pad_ids(ids), "labels": pad(labels, IGNORE)}
        return {**batch, "position_ids": pad(positions, 0), "attention_mask": seen.unsqueeze(1)}

    def generation_batch(
        self, questions: Sequence[str], prompts: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode prompts alone: `input_ids` and `attention_mask` [batch, longest]; `prompts`: one for each question.

        A causal model's are padded between image and question: generation goes on from the last column, and the first ones
        are the same for all questions of an image.
        """
        rows, image = self.prompt_ids(questions, prompts), self.num_query_tokens
        more = self.more_inputs(questions, prompts)
        if self.seq2seq:
            return self.pad_rows(rows) | more
        longest = max(map(len, rows))
        gaps = [longest - len(row) for row in rows]
        padding = [self.pad_token_id]
        ids = [row[:image] + padding * gap + row[image:] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * image + [0] * gap + [1] * (longest - image - gap) for gap in gaps]
        return {"input_ids": self.pad_ids(ids), "attention_mask": pad(mask, 0)} | more

    def pad_ids(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Pad rows; raises `ValueError` for a row with too few image tokens, or too many."""
        ids = super().pad_ids(rows)
        # The model scatters image features over image tokens without counting them: too few, and a row would be
        # answered from its neighbour's picture (a question may spell out "<image>", too).
        if self.num_query_tokens and not bool(((ids == self.image_token_id).sum(1) == self.num_query_tokens).all()):
            raise ValueError(f"every row must hold exactly {self.num_query_tokens} image tokens")
        return ids

    @cached_property
    def _image_token(self) -> str | None:
        return self.tokenizer.convert_ids_to_tokens(self.image_token_id) if self.num_query_tokens else None

    def problems_of_all(self, examples: Sequence[Example], tokens_per_row: int) -> list[str]:
        """List a prompt that spells the image token, and a `tokens_per_row` that is too small for one question."""
        problems, token = [], self._image_token
        if token and token in self.prompt:
            problems.append(
                f"--prompt: {self.prompt!r} contains {token!r}; the picture is put in front of it by itself"
            )
        long = [example for example in examples if 0 < tokens_per_row < self.most_tokens(example)]
        longest = max((sum(self._lengths(example)) for example in long), default=0)
        if longest > tokens_per_row:
            problems.append(
                f"--tokens_per_row {tokens_per_row}: too small for one question; the least that works here is {longest}"
            )
        return problems

    def problems_of_row(self, example: Example, answer_room: int) -> list[str]:
        """Also list a question or an answer that spells the image token."""
        token = self._image_token
        texts = (("question", example.question), *(("answer", answer) for answer in example.answers))
        spelt = [
            f"the {what} contains {token!r}, which stands for the picture"
            for what, text in texts if token and token in text
        ]  # fmt: skip
        return spelt + super().problems_of_row(example, answer_room)

    def most_tokens(self, example: Example) -> int:
        """Count the image and the longest answer, too."""
        answer = max((len(answer.encode()) for answer in example.answers), default=0)
        return super().most_tokens(example) + self.num_query_tokens + answer

    def _lengths(self, example: Example) -> tuple[int, int]:
        """Count the tokens of the prompt, and of the longest answer with its end."""
        answers = self.answer_ids(list(example.answers) or [""])
        return len(self.prompt_ids([example.question])[0]), max(map(len, answers))

    def row_length(self, example: Example, answer_room: int) -> int:
        """Count prompt and answer together; a decoder counts from its own start."""
        prompt, answer = self._lengths(example)
        room = max(answer, answer_room)
        return max(prompt, room) if self.seq2seq else prompt + room


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Pad rows of unlike length on the right → int64 [rows, longest]."""
    sequences = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)
