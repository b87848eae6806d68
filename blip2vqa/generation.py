"""Answers from features, in batches; a causal model's keys and values of an image are computed once for all its questions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import DynamicCache

from blip2vqa.answer_lists import AnswerTree
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import Example
from blip2vqa.features import Features
from blip2vqa.loading import LoadedModel

# Questions are sorted by length among so many batches, or among those of as many images as a batch has questions: the keys
# and values of these images are in memory together.
BATCHES_TOGETHER = 4


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    confidence: float
    """Probability of the answer's tokens, end token included: their product, from 0 to 1."""
    ranked: tuple[tuple[str, float], ...] = ()
    """With a list of answers, the likeliest of them and their probabilities."""


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; kept in an adapter's manifest."""

    num_beams: int = 1
    max_new_tokens: int = 10


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel,
    text: TextEncoder,
    query_output: torch.Tensor,
    questions: Sequence[str],
    decoding: Decoding,
    tree: AnswerTree | None = None,
) -> list[Answer]:
    """Answer `questions` about images given as `query_output` [batch, num_query_tokens, hidden]: the plain way, image and
    question through the language model together."""
    base = loaded.base
    batch = {name: tensor.to(loaded.device) for name, tensor in text.generation_batch(questions).items()}
    # BLIP-2's own `generate` always runs the vision tower, and ignores the model's generation_config.
    embeddings = base.embed(batch["input_ids"], query_output.to(loaded.device))
    inputs = {"inputs_embeds": embeddings, "attention_mask": batch["attention_mask"]}
    # With embeddings as input a causal model returns the new tokens alone; a seq2seq one starts with its start token.
    return _generate(loaded, text, decoding, tree, prompt=int(text.seq2seq), **inputs)


@torch.inference_mode()
def image_memory(loaded: LoadedModel, query_output: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A causal model's keys and values of images alone, by layer: [images, heads, num_query_tokens, head size] each."""
    decoder = loaded.base.language_model.get_decoder()
    embeddings = loaded.base.project(query_output.to(loaded.device)).to(decoder.dtype)
    return [
        (layer.keys, layer.values) for layer in decoder(inputs_embeds=embeddings, use_cache=True).past_key_values.layers
    ]


@torch.inference_mode()
def answer_remembered(
    loaded: LoadedModel,
    text: TextEncoder,
    memory: list[tuple[torch.Tensor, torch.Tensor]],
    rows: Sequence[int],
    questions: Sequence[str],
    decoding: Decoding,
    tree: AnswerTree | None = None,
) -> list[Answer]:
    """As `answer_batch` of a causal model, `questions[i]` about image `rows[i]` of `memory`, whose tokens are not run again."""
    batch = {name: tensor.to(loaded.device) for name, tensor in text.generation_batch(questions).items()}
    index = torch.tensor(rows, device=loaded.device).repeat_interleave(_beams(decoding, tree))
    cache = DynamicCache([(keys[index], values[index]) for keys, values in memory])
    return _generate(loaded, text, decoding, tree, prompt=batch["input_ids"].shape[1], past_key_values=cache, **batch)


def _beams(decoding: Decoding, tree: AnswerTree | None) -> int:
    return max(decoding.num_beams, tree.beams) if tree else decoding.num_beams


def _generate(
    loaded: LoadedModel, text: TextEncoder, decoding: Decoding, tree: AnswerTree | None, prompt: int, **inputs
) -> list[Answer]:
    """`prompt` is how many columns of the generated sequences stand in front of the answer."""
    language_model, beams = loaded.base.language_model, _beams(decoding, tree)
    options = {"max_new_tokens": decoding.max_new_tokens}
    if tree:
        options = {
            "max_new_tokens": tree.longest,
            "prefix_allowed_tokens_fn": lambda _, ids: tree.allowed(ids[prompt:].tolist()),
            "num_return_sequences": beams,
            "length_penalty": 0.0,  # ranked by probability, not by probability for each token
        }
    output = language_model.generate(
        **inputs,
        **options,
        num_beams=beams,
        do_sample=False,
        eos_token_id=text.end_token_id,
        pad_token_id=text.tokenizer.pad_token_id,
        output_scores=True,
        return_dict_in_generate=True,
    )
    new_tokens = output.sequences[:, prompt:]
    scores = language_model.compute_transition_scores(
        output.sequences,
        output.scores,
        getattr(output, "beam_indices", None),
        normalize_logits=beams == 1,  # beam search has done it by itself
    )
    # Columns behind the end token are padding: they say nothing about the answer.
    ended = (new_tokens == text.end_token_id).cumsum(1)
    counted = (ended == 0) | ((ended == 1) & (new_tokens == text.end_token_id))
    scores = scores[:, : new_tokens.shape[1]].float().masked_fill(~counted[:, : scores.shape[1]], 0.0)
    confidences = scores.sum(1).exp().tolist()
    if tree:
        return _ranked(tree, new_tokens.tolist(), confidences, beams)
    texts = text.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return [Answer(said.strip(), confidence) for said, confidence in zip(texts, confidences, strict=True)]


def _ranked(tree: AnswerTree, tokens: list[list[int]], confidences: list[float], beams: int) -> list[Answer]:
    """`beams` sequences a question → one answer each, with the others behind it."""
    answers = []
    for start in range(0, len(tokens), beams):
        said = {
            tree.answer(tokens[beam]): confidences[beam]
            for beam in range(start, start + beams)
            if confidences[beam] > 0
        }
        said.pop(None, None)  # a beginning that the list does not hold as a whole
        ranked = sorted(said.items(), key=lambda item: -item[1])
        answers.append(Answer(*ranked[0], tuple(ranked)) if ranked else Answer("", 0.0))
    return answers


def answer_by_batch(
    loaded: LoadedModel,
    text: TextEncoder,
    features: Features,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    batch_size: int,
    tree: AnswerTree | None = None,
) -> Iterator[list[tuple[int, Answer]]]:
    """Answers as they come, each with its index among `examples`: every example once, in an order that costs least.

    Processes of one launch share the work, and each gets the answers of all.
    """
    state = PartialState()
    by_image: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        by_image.setdefault(example.digest, []).append(index)
    order = [index for group in by_image.values() for index in group]
    share = -(-len(order) // state.num_processes)
    mine = order[state.process_index * share : (state.process_index + 1) * share]
    batches = _my_batches(loaded, text, features, examples, decoding, mine, batch_size, tree)
    for _ in range(-(-share // batch_size)):
        found = next(batches, [])
        yield gather_object(found) if state.num_processes > 1 else found


def _my_batches(
    loaded, text, features, examples, decoding, mine, batch_size, tree
) -> Iterator[list[tuple[int, Answer]]]:
    for chunk in _chunks(mine, [example.digest for example in examples], batch_size):
        images = {digest: row for row, digest in enumerate(dict.fromkeys(examples[index].digest for index in chunk))}
        memory = _remember(loaded, text, features, list(images), batch_size)
        lengths = dict(zip(chunk, text.prompt_lengths([examples[index].question for index in chunk]), strict=True))
        chunk.sort(key=lengths.__getitem__, reverse=True)
        for first in range(0, len(chunk), batch_size):
            batch = chunk[first : first + batch_size]
            rows = [images[examples[index].digest] for index in batch]
            questions = [examples[index].question for index in batch]
            if text.seq2seq:
                said = answer_batch(loaded, text, memory[rows], questions, decoding, tree)
            else:
                said = answer_remembered(loaded, text, memory, rows, questions, decoding, tree)
            yield list(zip(batch, said, strict=True))


def _chunks(mine: list[int], digests: list[str], batch_size: int) -> Iterator[list[int]]:
    """`mine` in whole batches, at most `BATCHES_TOGETHER` at once, and no more than one with images enough for a batch."""
    chunk: list[int] = []
    for start in range(0, len(mine), batch_size):
        batch = mine[start : start + batch_size]
        images = len({digests[index] for index in chunk + batch})
        if chunk and (images > batch_size or len(chunk) >= batch_size * BATCHES_TOGETHER):
            yield chunk
            chunk = []
        chunk = chunk + batch
    if chunk:
        yield chunk


@torch.inference_mode()
def _remember(loaded: LoadedModel, text: TextEncoder, features: Features, digests: list[str], batch_size: int):
    """What the questions of these images share: `query_output` of a seq2seq model, `image_memory` of a causal one."""
    parts = []
    for start in range(0, len(digests), batch_size):
        given = features.of(digests[start : start + batch_size]).to(loaded.device, loaded.dtype)
        query_output = loaded.base.encode(**{features.name: given})
        parts.append(query_output if text.seq2seq else image_memory(loaded, query_output))
    if text.seq2seq:
        return torch.cat(parts)
    layers = zip(*parts, strict=True)  # of each layer, (keys, values) of every part
    return [(torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer])) for layer in layers]


def answer_examples(
    loaded: LoadedModel,
    text: TextEncoder,
    features: Features,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[Answer]:
    """Answers in the order of `examples`; `progress` names the bar, or none is shown. See `answer_by_batch`."""
    hidden = progress is None or not PartialState().is_main_process
    was_training = loaded.model.training
    loaded.model.eval()
    answers: list[Answer] = [None] * len(examples)
    with tqdm(total=len(examples), desc=progress, unit="question", disable=hidden, leave=False) as bar:
        for batch in answer_by_batch(loaded, text, features, examples, decoding, batch_size=batch_size):
            for index, answer in batch:
                answers[index] = answer
            bar.update(len(batch))
    loaded.model.train(was_training)
    return answers
