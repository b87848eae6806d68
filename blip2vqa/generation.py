"""Answers from features, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import Example
from blip2vqa.features import ImageFeatures
from blip2vqa.loading import LoadedModel


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    confidence: float
    """Probability of the answer's tokens, end token included: their product, from 0 to 1."""


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; kept in an adapter's manifest."""

    num_beams: int = 1
    max_new_tokens: int = 10


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel, text: TextEncoder, query_output: torch.Tensor, questions: Sequence[str], decoding: Decoding
) -> list[Answer]:
    """Answer `questions` about images given as `query_output` [batch, num_query_tokens, hidden]."""
    base = loaded.base
    language_model = base.language_model
    batch = {name: tensor.to(loaded.device) for name, tensor in text.generation_batch(questions).items()}
    # BLIP-2's own `generate` always runs the vision tower, and ignores the model's generation_config.
    output = language_model.generate(
        inputs_embeds=base.embed(batch["input_ids"], query_output.to(loaded.device)),
        attention_mask=batch["attention_mask"],
        num_beams=decoding.num_beams,
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        eos_token_id=text.end_token_id,
        pad_token_id=text.tokenizer.pad_token_id,
        output_scores=True,
        return_dict_in_generate=True,
    )
    # With embeddings as input a causal model returns the new tokens alone; a seq2seq one starts with its start token.
    new_tokens = output.sequences[:, 1:] if text.seq2seq else output.sequences
    beams = getattr(output, "beam_indices", None)
    scores = language_model.compute_transition_scores(
        output.sequences, output.scores, beams, normalize_logits=decoding.num_beams == 1
    )
    # Columns behind the end token are padding: they say nothing about the answer.
    ended = (new_tokens == text.end_token_id).cumsum(1)
    counted = (ended == 0) | ((ended == 1) & (new_tokens == text.end_token_id))
    scores = scores[:, : new_tokens.shape[1]].float().masked_fill(~counted[:, : scores.shape[1]], 0.0)
    texts = text.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    confidences = scores.sum(1).exp().tolist()
    return [Answer(said.strip(), confidence) for said, confidence in zip(texts, confidences, strict=True)]


def answer_examples(
    loaded: LoadedModel,
    text: TextEncoder,
    features: ImageFeatures,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[Answer]:
    """Answers in the order of `examples`; `progress` names the bar, or none is shown.

    Processes of one launch share the work, and all get the whole result.
    """
    state = PartialState()
    size = -(-len(examples) // state.num_processes)
    mine = examples[state.process_index * size : (state.process_index + 1) * size]
    hidden = progress is None or not state.is_main_process
    was_training = loaded.model.training
    loaded.model.eval()
    answers: list[Answer] = []
    with tqdm(total=len(mine), desc=progress, unit="question", disable=hidden, leave=False) as bar:
        for start in range(0, len(mine), batch_size):
            rows = mine[start : start + batch_size]
            query_output = features.of(example.digest for example in rows)
            answers += answer_batch(loaded, text, query_output, [example.question for example in rows], decoding)
            bar.update(len(rows))
    loaded.model.train(was_training)
    return gather_object(answers) if state.num_processes > 1 else answers
