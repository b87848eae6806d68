"""Generate answers from features, in batches.

A causal model's keys and values of an image are computed once, and used for all questions about it.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import DynamicCache

from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Features, Pixels
from blip2vqa.inference.allowed_tokens import AllowedTokens
from blip2vqa.inference.choosing import ChosenAnswers
from blip2vqa.inference.request import Answer, AnswerRequest, use_adapters
from blip2vqa.models.answer_lists import AnswerTree, AnswerTrees
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.text import TextEncoder
from blip2vqa.utils.progress import show_progress
from blip2vqa.utils.randomness import own_random_state

BATCHES_TOGETHER = 4
"""Most batches among whose questions like lengths are put together; fewer where they would have more images than a batch has
questions, since the keys and values of all these images are in memory at once."""


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel,
    request: AnswerRequest,
    vision: torch.Tensor,
    questions: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> list[Answer]:
    """Answer one batch the plain way: image and question go through the language model together.

    `vision`: what the base's `encode` returns for the images [batch, …]. `prompts`: one for each question instead of the
    encoder's own.
    """
    inputs = _with_images(loaded, request.text, vision, questions, prompts)
    # With embeddings as input a causal model returns the new tokens alone; a seq2seq one starts with its start token.
    prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else int(request.text.seq2seq)
    return _generate(loaded, request, prompt, **inputs)


def _with_images(
    loaded: LoadedModel, text: TextEncoder, vision: torch.Tensor, questions: Sequence[str], prompts=None
) -> dict[str, torch.Tensor]:
    """Encode images and prompts together for upstream's `generate`.

    BLIP-2's own always runs the vision tower, and ignores the model's generation_config.
    """
    batch = {name: tensor.to(loaded.device) for name, tensor in text.generation_batch(questions, prompts).items()}
    return loaded.base.generation_inputs(vision.to(loaded.device), **batch)


@torch.inference_mode()
def prefill_images(loaded: LoadedModel, query_output: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compute a causal model's keys and values of images alone.

    Returns one pair a layer, each tensor [images, heads, num_query_tokens, head size].
    """
    decoder = loaded.base.language_model.get_decoder()
    embeddings = loaded.base.project(query_output.to(loaded.device)).to(decoder.dtype)
    return [
        (layer.keys, layer.values) for layer in decoder(inputs_embeds=embeddings, use_cache=True).past_key_values.layers
    ]


@torch.inference_mode()
def answer_with_kv_cache(
    loaded: LoadedModel,
    request: AnswerRequest,
    memory: list[tuple[torch.Tensor, torch.Tensor]],
    rows: Sequence[int],
    questions: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> list[Answer]:
    """Answer one batch by a causal model, `questions[i]` about image `rows[i]` of `memory`.

    `memory`: what `prefill_images` returns; the tokens of the images are not computed again. Otherwise as `answer_batch`.
    """
    encoded = request.text.generation_batch(questions, prompts)
    batch = {name: tensor.to(loaded.device) for name, tensor in encoded.items()}
    index = torch.tensor(rows, device=loaded.device).repeat_interleave(_beams(request))
    cache = DynamicCache([(keys[index], values[index]) for keys, values in memory])
    return _generate(loaded, request, batch["input_ids"].shape[1], past_key_values=cache, **batch)


def _beams(request: AnswerRequest) -> int:
    return max(request.decoding.num_beams, request.tree.beams if request.tree else 1)


def _generate(loaded: LoadedModel, request: AnswerRequest, prompt: int, **inputs) -> list[Answer]:
    """Run upstream's `generate`; `prompt` is the number of columns in front of the answer in the sequences it returns."""
    text, decoding, tree = request.text, request.decoding, request.tree
    language_model, beams = loaded.base.language_model, _beams(request)
    options = {"max_new_tokens": decoding.max_new_tokens, "do_sample": decoding.do_sample}
    if decoding.min_new_tokens:
        options["min_new_tokens"] = decoding.min_new_tokens
    if decoding.do_sample:
        options |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    if tree:
        options = {
            "max_new_tokens": tree.longest,
            "do_sample": False,
            "logits_processor": [AllowedTokens(tree, beams, prompt, text.end_token_id)],
            "num_return_sequences": beams,
            "length_penalty": 0.0,  # ranked by probability, not by probability for each token
        }
    # Sampling must not change the random numbers of training.
    with own_random_state(loaded.device, decoding.sampling_seed) if decoding.do_sample else nullcontext():
        output = language_model.generate(
            **inputs,
            **options,
            num_beams=beams,
            synced_gpus=bool(loaded.sharded),
            eos_token_id=text.end_token_id,
            pad_token_id=text.pad_token_id,
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


def _ranked(
    tree: AnswerTree | AnswerTrees, tokens: list[list[int]], confidences: list[float], beams: int
) -> list[Answer]:
    """Turn the `beams` sequences of each question into its likeliest answer, with the others in `ranked`."""
    answers = []
    for row, start in enumerate(range(0, len(tokens), beams)):
        said: dict[str | None, float] = {}
        for beam in range(start, start + beams):
            # More beams than answers are filled up with repetitions, behind the true ones, whose scores mean nothing.
            if confidences[beam] > 0:
                said.setdefault(tree.of(row).answer(tokens[beam]), confidences[beam])
        said.pop(None, None)  # the beginning of an answer only
        ranked = sorted(said.items(), key=lambda item: -item[1])
        answers.append(Answer(*ranked[0], tuple(ranked)) if ranked else Answer("", 0.0))
    return answers


class WrittenAnswers:
    """How a base answers that writes: its `TextEncoder` makes prompts, and the language model goes on from them."""

    share_batches = True
    """Whether one batch may hold questions to several adapters."""

    @torch.inference_mode()
    def prepare(self, loaded: LoadedModel, text: TextEncoder, features: Features, images: list[tuple], batch_size: int):
        """Compute what the questions of these (image, adapter) share: `prefill_images` of a causal model that begins with the
        image, else what `encode` returns."""
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            given = features.of([digest for digest, _ in batch]).to(loaded.device, loaded.dtype)
            with use_adapters(loaded, [adapter for _, adapter in batch]):
                vision = loaded.base.encode(**{features.name: given})
                parts.append(prefill_images(loaded, vision) if text.shares_image else vision)
        if not text.shares_image:
            return torch.cat(parts)
        layers = zip(*parts, strict=True)  # of each layer, (keys, values) of every part
        return [
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer])) for layer in layers
        ]

    def answer(
        self, loaded: LoadedModel, request: AnswerRequest, features: Features, memory, rows, digests, questions, prompts
    ) -> list[Answer]:
        """Answer one batch of questions about the images `digests`, which are `rows` of what `prepare` returned."""
        if request.text.shares_image:
            return answer_with_kv_cache(loaded, request, memory, rows, questions, prompts)
        return answer_batch(loaded, request, memory[rows], questions, prompts)

    @torch.inference_mode()
    def first_scores(self, loaded: LoadedModel, text: TextEncoder, pixels: Pixels, question: str) -> torch.Tensor:
        """Compute the logits [vocabulary] of an answer's first token, about the one image of `pixels`."""
        vision = loaded.base.encode(pixel_values=pixels.of(pixels.images).to(loaded.device, loaded.dtype))
        inputs = _with_images(loaded, text, vision, [question])
        options = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        said = loaded.base.language_model.generate(**inputs, **options, pad_token_id=text.pad_token_id)
        return said.logits[0][0].float().cpu()

    def remembered(self, request: AnswerRequest) -> dict:
        """Return what a manifest keeps of how the answers are written."""
        return {"decoding": asdict(request.decoding), "end_token": request.text.end_token}

    def describe(self, request: AnswerRequest) -> list[tuple[str, str]]:
        """Say how answers are found, as `(label, text)` lines."""
        pairs = [("decoding", request.decoding.describe()), ("prompt", request.text.prompt)]
        if request.tree:
            how = f"found and ranked with {request.tree.beams} beams"
            pairs.append(("answers", f"one of {len(request.tree.answers):,}, {how}"))
        return pairs


ANSWERS_WITH = {"tokens": WrittenAnswers(), "classes": ChosenAnswers()}
"""By `answers_with` of what encodes a base's text."""


def answer_by_batch(
    loaded: LoadedModel,
    features: Features,
    examples: Sequence[Example],
    requests: Sequence[AnswerRequest],
    *,
    batch_size: int,
    done: Collection[int] = (),
) -> Iterator[list[tuple[int, Answer]]]:
    """Yield batches of (index, answer), ordered so that the work for an image is done once; `requests[i]` asks `examples[i]`.

    Batches all of whose indices are in `done` are left out. The others are what they would be without it, since in bfloat16 an
    answer's confidence depends on the batch: a run that goes on after an interruption ends as if there had been none.

    Requests that decode alike share batches, whatever their adapters, and so do those whose rows have answers of their own. An
    adapter's questions follow each other, so that few adapters need to be in memory at a time. Processes of one launch share
    the work, and each gets the answers of all. Those that share a base have as many batches each, since all take part in every
    step: who has fewer rows answers some again, and leaves them out. There, `done` is not allowed.
    """
    state = PartialState()
    keys = [(example.digest, request.adapter) for example, request in zip(examples, requests, strict=True)]
    by_kind: dict[tuple, dict[tuple, list[int]]] = {}
    for index, request in enumerate(requests):
        alone = None if ANSWERS_WITH[request.text.answers_with].share_batches else request.adapter
        kind = by_kind.setdefault((request.decoding, "of the row" if request.of_row else id(request.tree), alone), {})
        kind.setdefault(keys[index], []).append(index)
    turns = {name: turn for turn, name in enumerate(dict.fromkeys(request.adapter for request in requests))}
    for by_image in by_kind.values():
        in_turn = sorted(by_image, key=lambda key: turns[key[1]])
        order = [index for key in in_turn for index in by_image[key]]
        share = -(-len(order) // state.num_processes)
        mine = order[state.process_index * share : (state.process_index + 1) * share]
        again = order[: share - len(mine)] if loaded.sharded else []
        batches = _my_batches(loaded, features, examples, requests, keys, mine + again, batch_size, done)
        for _ in range(-(-share // batch_size)):
            found = [(index, answer) for index, answer in next(batches, []) if index not in again]
            yield gather_object(found) if state.num_processes > 1 else found


def _my_batches(
    loaded, features, examples, requests, keys, mine, batch_size, done
) -> Iterator[list[tuple[int, Answer]]]:
    """Answer the examples of this process, which can all share batches; `keys` are every example's (image, adapter)."""
    for chunk in _chunks(mine, keys, batch_size, 1 if loaded.sharded else BATCHES_TOGETHER):
        if all(index in done for index in chunk):
            continue
        request = requests[chunk[0]]
        answers = ANSWERS_WITH[request.text.answers_with]
        images = {key: row for row, key in enumerate(dict.fromkeys(keys[index] for index in chunk))}
        memory = answers.prepare(loaded, request.text, features, list(images), batch_size)
        asked = [examples[index].question for index in chunk], [requests[index].text.prompt for index in chunk]
        lengths = dict(zip(chunk, map(len, request.text.prompt_ids(*asked)), strict=True))
        chunk.sort(key=lengths.__getitem__, reverse=True)
        for first in range(0, len(chunk), batch_size):
            batch = sorted(chunk[first : first + batch_size], key=lambda index: requests[index].adapter)
            if all(index in done for index in batch):
                continue
            rows = [images[keys[index]] for index in batch]
            digests = [examples[index].digest for index in batch]
            questions = [examples[index].question for index in batch]
            prompts = [requests[index].text.prompt for index in batch]
            if request.of_row:
                request = replace(request, tree=AnswerTrees([requests[index].tree for index in batch]))
            with use_adapters(loaded, [requests[index].adapter for index in batch]):
                said = answers.answer(loaded, request, features, memory, rows, digests, questions, prompts)
            yield [(index, requests[index].rate(answer)) for index, answer in zip(batch, said, strict=True)]


def _chunks(mine: list[int], keys: list[tuple], batch_size: int, most: int) -> Iterator[list[int]]:
    """Cut `mine` into chunks of whole batches: `most` at most, with no more images than a batch has rows."""
    chunk: list[int] = []
    for start in range(0, len(mine), batch_size):
        batch = mine[start : start + batch_size]
        images = len({keys[index] for index in chunk + batch})
        if chunk and (images > batch_size or len(chunk) >= batch_size * most):
            yield chunk
            chunk = []
        chunk = chunk + batch
    if chunk:
        yield chunk


def answer_examples(
    loaded: LoadedModel,
    features: Features,
    examples: Sequence[Example],
    requests: AnswerRequest | Sequence[AnswerRequest],
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[Answer]:
    """Answer `examples`, all by one request or each by its own, and return the answers in their order.

    `progress` names the progress bar; None shows none. See `answer_by_batch`.
    """
    hidden = progress is None or not PartialState().is_main_process
    was_training = loaded.model.training
    loaded.model.eval()
    answers: list[Answer] = [None] * len(examples)
    requests = [requests] * len(examples) if isinstance(requests, AnswerRequest) else requests
    with show_progress(total=len(examples), desc=progress, unit="row", disable=hidden, leave=False) as bar:
        for batch in answer_by_batch(loaded, features, examples, requests, batch_size=batch_size):
            for index, answer in batch:
                answers[index] = answer
            bar.update(len(batch))
    loaded.model.train(was_training)
    return answers
