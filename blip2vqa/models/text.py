"""Questions and answers → tensors of token ids, for training and for generation.

Causal (OPT):   `<image>` × num_query_tokens, start token, prompt, answer, end token; supervised: answer and end token.
Seq2seq (T5):   encoder `<image>` × num_query_tokens, prompt, end token; decoder: answer, end token, all supervised.

BLIP has no image tokens. InstructBLIP's Q-Former gets the prompt, too, in tokens of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Features
from blip2vqa.models.families import family_of
from blip2vqa.training.losses import IGNORE, AnswerLoss
from blip2vqa.utils.errors import InputError

_ANCHOR = "a"  # a word in front, behind which a word is tokenized as a continuation


@dataclass(frozen=True)
class TextEncoder:
    """Tokenizes prompts and answers for one base; used alike for training and for generation."""

    tokenizer: PreTrainedTokenizerBase
    prompt: str
    """With {question} in it where there is one."""
    seq2seq: bool
    image_token_id: int | None
    num_query_tokens: int
    """Image tokens in front of every prompt; 0: the picture does not stand in the text."""
    end_token_id: int
    max_positions: int | None = None
    """Longest row in tokens, image tokens included."""
    start_token_id: int | None = None
    """What a decoder, or a text without the tokenizer's own marks around it, begins with."""
    qformer_tokenizer: PreTrainedTokenizerBase | None = None
    max_read: int | None = None
    """Longest prompt that the Q-Former can read, in its own tokens."""

    @classmethod
    def of(
        cls, processor: ProcessorMixin, config: PreTrainedConfig, prompt: str | None = None, **more
    ) -> "TextEncoder":
        """For a base's processor and configuration, and its family's own prompt unless given; no weights are needed."""
        family, text = family_of(config), getattr(config, "text_config", config)
        seq2seq = family.answers != "causal"
        tokenizer = processor.tokenizer
        ends = {
            "config": getattr(text, "eos_token_id", None),
            "eos": tokenizer.eos_token_id,
            "sep": tokenizer.sep_token_id,
        }
        end, start = ends[family.end_token], getattr(text, "bos_token_id", None)
        if family.image_tokens:
            start = text.decoder_start_token_id if seq2seq else None
        return cls(
            tokenizer=tokenizer,
            prompt=prompt or family.prompt,
            seq2seq=seq2seq,
            image_token_id=config.image_token_index if family.image_tokens else None,
            num_query_tokens=config.num_query_tokens if family.image_tokens else 0,
            end_token_id=end[0] if isinstance(end, list) else end,
            max_positions=getattr(
                text, "max_position_embeddings", None
            ),  # T5's positions are relative: it has no limit
            start_token_id=start,
            qformer_tokenizer=processor.qformer_tokenizer if family.reads_question else None,
            max_read=config.qformer_config.max_position_embeddings if family.reads_question else None,
            **more,
        )

    @property
    def classes(self) -> bool:
        """Whether answers are outputs of a head, not tokens."""
        return False

    @property
    def shares_image(self) -> bool:
        """Whether a row may begin with a picture's tokens, the same for all questions about it."""
        return not self.seq2seq and self.num_query_tokens > 0 and self.qformer_tokenizer is None

    @property
    def pad_token_id(self) -> int:
        """Old copies of LLaMA's tokenizer have none; what is padded is masked."""
        return self.end_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    def fill(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> list[str]:
        """The prompt around each question; `prompts`: one for each question instead."""
        prompts = prompts or [self.prompt] * len(questions)
        return [prompt.replace("{question}", question) for prompt, question in zip(prompts, questions, strict=True)]

    def prompt_ids(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> list[list[int]]:
        """Image tokens, then the tokenizer's own start or end token around the prompt, unpadded."""
        texts, own = self.fill(questions, prompts), self.num_query_tokens > 0 or self.seq2seq
        # The tokenizer alone, not the processor: without images that subtracts the query tokens from max_length.
        ids = self.tokenizer(texts, add_special_tokens=own, return_token_type_ids=False)["input_ids"]
        before = [self.image_token_id] * self.num_query_tokens if own else [self.start_token_id]
        return [before + row for row in ids]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Answer and end token, unpadded. A causal model continues the prompt, hence the blank before the answer."""
        skip, texts = 0, list(answers)
        if not self.seq2seq:
            # Behind a word: a tokenizer like LLaMA's puts a blank of its own in front of a text that begins with none.
            skip = len(self.tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
            texts = [f"{_ANCHOR} {answer.strip()}" for answer in answers]
        ids = self.tokenizer(texts, add_special_tokens=False, return_token_type_ids=False)["input_ids"]
        return [[*row[skip:], self.end_token_id] for row in ids]

    def read_ids(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """The prompts in the Q-Former's own tokens, where it reads them: `qformer_input_ids` and their mask [rows, longest]."""
        if self.qformer_tokenizer is None:
            return {}
        found = self.qformer_tokenizer(self.fill(questions, prompts), padding=True, return_tensors="pt")
        return {"qformer_input_ids": found["input_ids"], "qformer_attention_mask": found["attention_mask"]}

    def collator(self, features: Features, tokens_per_row: int | None = None) -> "TrainingCollator":
        """What makes training batches."""
        return TrainingCollator(self, features, tokens_per_row)

    def loss(self, label_smoothing: float = 0.0) -> AnswerLoss:
        """What training makes small."""
        return AnswerLoss(label_smoothing)

    def distinct(self, answers: Sequence[str]) -> tuple[str, ...]:
        """Those of `answers` that this base tells apart: all, in tokens of their own."""
        return tuple(answers)

    def unknown(self, answers: Sequence[str]) -> list[str]:
        """Those of `answers` that this base cannot give: none, where it writes them."""
        return []

    def refused(self, args) -> list[str]:
        """What of `FinetuneArguments` does not go with this base, one line each."""
        return []

    def training_batch(self, questions: Sequence[str], answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` (and `decoder_input_ids` for seq2seq), each [batch, longest].

        `labels` of a causal model are as long as `input_ids` and not shifted; of a seq2seq model, as the decoder's.
        """
        prompts, targets = self.prompt_ids(questions), self.answer_ids(answers)
        if self.seq2seq:
            batch = self._pad(prompts) | self.read_ids(questions)
            batch["labels"] = pad(targets, IGNORE)
            start = torch.full((len(targets), 1), self.start_token_id)
            shifted = torch.cat([start, batch["labels"][:, :-1]], dim=1)
            batch["decoder_input_ids"] = shifted.masked_fill(shifted == IGNORE, self.pad_token_id)
            return batch
        batch = self._pad([prompt + target for prompt, target in zip(prompts, targets, strict=True)])
        labels = [[IGNORE] * len(prompt) + target for prompt, target in zip(prompts, targets, strict=True)]
        batch["labels"] = pad(labels, IGNORE)
        return batch | self.read_ids(questions)

    def prompt_lengths(self, questions: Sequence[str]) -> list[int]:
        """Tokens of each prompt, image tokens included; tokenized a thousand at a time, since tokens take memory."""
        chunks = (questions[start : start + 1024] for start in range(0, len(questions), 1024))
        return [len(ids) for chunk in chunks for ids in self.prompt_ids(chunk)]

    def shared_batch(self, groups: Sequence[Sequence[tuple[list[int], list[int]]]]) -> dict[str, torch.Tensor]:
        """All questions of one image in one row of a causal model, as exact as one row each; a group is their pairs of
        `prompt_ids` and `answer_ids`.

        A row is the image tokens, then the questions with their answers one behind the other. Each question's positions
        go on from the image, and it sees the image and itself alone.

        Returns `input_ids`, `labels`, `position_ids` [rows, longest], and `attention_mask` bool [rows, 1, longest, longest].
        """
        image = [self.image_token_id] * self.num_query_tokens
        ids, labels, positions, segments = [], [], [], []
        for pairs in groups:
            row, row_labels, row_positions = list(image), [IGNORE] * len(image), list(range(len(image)))
            row_segments = [0] * len(image)
            for number, (prompt, target) in enumerate(pairs, start=1):
                tokens = prompt[len(image) :] + target
                row += tokens
                row_labels += [IGNORE] * (len(tokens) - len(target)) + target
                row_positions += range(len(image), len(image) + len(tokens))
                row_segments += [number] * len(tokens)
            ids.append(row)
            labels.append(row_labels)
            positions.append(row_positions)
            segments.append(row_segments)
        segment = pad(segments, -1)  # [rows, longest]: 0 the image, 1 … the questions, -1 padding
        one, other = segment.unsqueeze(2), segment.unsqueeze(1)
        causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
        # Padding sees itself, as a row that sees nothing would come out as not-a-number.
        seen = causal & ((one == other) | (other == 0) & (one > 0))
        batch = {"input_ids": pad(ids, self.pad_token_id), "labels": pad(labels, IGNORE)}
        self._check_image_tokens(batch["input_ids"])
        return {**batch, "position_ids": pad(positions, 0), "attention_mask": seen.unsqueeze(1)}

    def generation_batch(
        self, questions: Sequence[str], prompts: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [batch, longest] of prompts alone; `prompts`: one for each question.

        A causal model's are padded between image and question: generation goes on from the last column, and the first ones
        are the same for all questions of an image.
        """
        rows, image = self.prompt_ids(questions, prompts), self.num_query_tokens
        read = self.read_ids(questions, prompts)
        if self.seq2seq:
            return self._pad(rows) | read
        longest = max(map(len, rows))
        gaps = [longest - len(row) for row in rows]
        padding = [self.pad_token_id]
        ids = [row[:image] + padding * gap + row[image:] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * image + [0] * gap + [1] * (longest - image - gap) for gap in gaps]
        batch = {"input_ids": pad(ids, self.pad_token_id), "attention_mask": pad(mask, 0)}
        self._check_image_tokens(batch["input_ids"])
        return batch | read

    def _pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        ids = pad(rows, self.pad_token_id)
        self._check_image_tokens(ids)
        return {"input_ids": ids, "attention_mask": pad([[1] * len(row) for row in rows], 0)}

    def _check_image_tokens(self, ids: torch.Tensor) -> None:
        # The model scatters image features over image tokens without counting them: too few, and a row would be
        # answered from its neighbour's picture (a question may spell out "<image>", too).
        if self.num_query_tokens and not bool(((ids == self.image_token_id).sum(1) == self.num_query_tokens).all()):
            raise ValueError(f"every row must hold exactly {self.num_query_tokens} image tokens")

    def check_lengths(self, examples: Sequence[Example], answer_room: int, tokens_per_row: int = 0) -> None:
        """Raise `InputError` for rows that with `answer_room` tokens of answer exceed the model's positions, for questions
        that spell the image token, and when `tokens_per_row` (0: no bound) is too small for one question."""
        problems, longest = [], 0
        bounds = [bound for bound in (self.max_positions, self.max_read, tokens_per_row) if bound]
        token = self.tokenizer.convert_ids_to_tokens(self.image_token_id) if self.num_query_tokens else None
        if token and token in self.prompt:
            problems.append(
                f"--prompt: {self.prompt!r} contains {token!r}; the picture is put in front of it by itself"
            )
        fixed = self.num_query_tokens + len(self.prompt.encode()) + 2
        for example in examples:
            for what, spelt in (("question", example.question), *(("answer", answer) for answer in example.answers)):
                if token and token in spelt:
                    problems.append(f"row {example.row}: the {what} contains {token!r}, which stands for the picture")
            text = example.question + max(example.answers, key=lambda answer: len(answer.encode()), default="")
            # A token is at least one byte, so only rows long in bytes need to be tokenized to be sure.
            if not bounds or fixed + len(text.encode()) + answer_room <= min(bounds):
                continue
            prompt = len(self.prompt_ids([example.question])[0])
            answer = max((len(row) for row in self.answer_ids(list(example.answers) or [""])), default=0)
            longest, room = max(longest, prompt + answer), max(answer, answer_room)
            length = max(prompt, room) if self.seq2seq else prompt + room  # a decoder counts from its own start
            if self.max_positions and length > self.max_positions:
                problems.append(
                    f"row {example.row}: {length} tokens, but the base model has {self.max_positions} positions; shorten it"
                )
            if self.max_read:
                read = int(self.read_ids([example.question])["qformer_attention_mask"].sum())
                if read > self.max_read:
                    problems.append(
                        f"row {example.row}: {read} tokens for the Q-Former, which has {self.max_read} positions; shorten it"
                    )
        if tokens_per_row and longest > tokens_per_row:
            problems.append(
                f"--tokens_per_row {tokens_per_row}: too small for one question; the least that works here is {longest}"
            )
        if problems:
            more = [f"… and {len(problems) - 10} more rows"] if len(problems) > 10 else []
            raise InputError(*problems[:10], *more)


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of unlike length → int64 [rows, longest], padded on the right."""
    sequences = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)


@dataclass(frozen=True)
class TrainingCollator:
    """`(example, answer)` pairs → a batch of token tensors, with one image's features a row under their stage's name.

    `keep` marks the positions that predict a supervised token: [rows, longest], of a seq2seq model the decoder's.
    """

    text: TextEncoder
    features: Features
    tokens_per_row: int | None = None
    """Longest row, in tokens, that questions of one image share; None: one row a question."""

    def __call__(self, items: Sequence[tuple[Example, str]]) -> dict[str, torch.Tensor]:
        if self.tokens_per_row is None:
            digests = [example.digest for example, _ in items]
            batch = self.text.training_batch(
                [example.question for example, _ in items], [answer for _, answer in items]
            )
        else:
            digests, groups = self._rows(items)
            batch = self.text.shared_batch(groups)
        supervised = batch["labels"] != IGNORE
        # Column i of a causal model predicts token i + 1; a decoder's input is shifted already.
        batch["keep"] = supervised if self.text.seq2seq else supervised.roll(-1, dims=1)
        return {self.features.name: self.features.of(digests), **batch}

    def _rows(self, items: Sequence[tuple[Example, str]]) -> tuple[list[str], list[list[tuple[list[int], list[int]]]]]:
        """Token ids of prompts and answers by image, in rows of at most `tokens_per_row` tokens."""
        image = self.text.num_query_tokens
        prompts = self.text.prompt_ids([example.question for example, _ in items])
        targets = self.text.answer_ids([answer for _, answer in items])
        digests, groups, lengths, open_row = [], [], [], {}
        for (example, _), prompt, target in zip(items, prompts, targets, strict=True):
            length = len(prompt) - image + len(target)
            row = open_row.get(example.digest)
            if row is None or lengths[row] + length > self.tokens_per_row:
                row = open_row[example.digest] = len(groups)
                digests.append(example.digest)
                groups.append([])
                lengths.append(image)
            groups[row].append((prompt, target))
            lengths[row] += length
        return digests, groups
