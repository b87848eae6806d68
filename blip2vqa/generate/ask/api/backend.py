"""Questions from a chat endpoint that sees pictures, through the `openai` client: paid for once, kept in a ledger."""

import json
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2vqa.data.images import BadImage
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ask.api.asking import RESPONSE_FORMAT, Asker, Outcome, Prompts
from blip2vqa.generate.ask.api.client import explain, give_up
from blip2vqa.generate.ask.api.endpoint import check_api, endpoint_url
from blip2vqa.generate.ask.api.limits import likely_input_tokens, most_input_tokens
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.progress import show_progress

if TYPE_CHECKING:
    from blip2vqa.config.generate import ApiArguments

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 5  # pictures without an answer before the endpoint is given up
NONSENSE_IN_A_ROW = 10  # pictures whose answers, paid for, cannot be read
TOKENS_A_QUESTION = 30  # with its answer, type and JSON around them
STATUSES = ("answered", "refused", "malformed", "no_answer", "unasked")


@dataclass
class Asked:
    """What the endpoint made of the pictures."""

    questions: list[Question]
    """In the order of the pictures."""
    counts: dict
    """Of this run: `requests`, answers that came in it, and `from_ledger`, pictures for which none was needed. Of the data
    set, whatever runs it took: pictures `answered`, `refused`, `malformed`, with `no_answer` and `unasked`; the `answers` that
    came about them, their `input_tokens`, `output_tokens` and `usd` (None without prices); `stopped`, why asking ended early,
    or None."""


def ask_api(
    items: Sequence[Item],
    args: "ApiArguments",
    ledger: Ledger,
    num_questions: int,
    seed: int = 42,
    progress: bool = True,
) -> Asked:
    """Ask the endpoint about every picture whose answer is not in `ledger`.

    An answer is in the ledger before it is counted: a run that was stopped, by whatever means, goes on where it was, and
    ends as it would have otherwise. Pictures with the same bytes and listing are asked about once. With another seed, model,
    number of questions or `max_output_tokens` a prompt is another one, asked anew.

    Raises `InputError`: wrong arguments; an endpoint that cannot be reached, refuses the key, does not know the model, has
    no credit left, fails for five pictures in a row, or whose answers cannot be read; a picture that has changed; a
    full disk. On Ctrl-C, answers under way are waited for before KeyboardInterrupt is raised.
    """
    check_api(args)
    asked = Prompts(args, ledger, num_questions, seed)
    digests = [asked.digest(item) for item in items]
    outcomes = {digest: asked.outcome(digest) for digest in digests}
    waiting = {digest: item for digest, item in zip(digests, items, strict=True) if outcomes[digest] is None}
    counts = {"requests": 0, "from_ledger": sum(outcomes[digest] is not None for digest in digests)}
    stopped = None
    if waiting:
        asker = Asker(asked, ledger, args)
        counts["requests"] = _lead(asker, waiting, outcomes, progress)
        stopped = _report(asker, outcomes)
    statuses = [outcomes[digest].status for digest in digests]
    counts |= {status: statuses.count(status) for status in STATUSES}
    records = [record for digest in outcomes for record in asked.records(digest)]
    counts["answers"] = len(records)
    for name in ("input_tokens", "output_tokens", "usd"):
        counts[name] = sum(record[name] for record in records)
    priced = args.usd_per_million_input_tokens or args.usd_per_million_output_tokens
    counts["usd"] = round(counts["usd"], 6) if priced else None
    source = f"api:{args.api_model}"
    questions = [
        Question(
            item, question, prompts.clean_answer(answer), question_type, source, raw_answer=answer, prompt_hash=digest
        )
        for item, digest in zip(items, digests, strict=True)
        for question, answer, question_type in outcomes[digest].rows[:num_questions]
    ]
    return Asked(questions, counts | {"stopped": stopped})


def _lead(asker: Asker, waiting: dict[str, Item], outcomes: dict[str, Outcome | None], progress: bool) -> int:
    """Ask about `waiting` in threads, write what became of it to `outcomes`, and return the number of answers that came."""
    jobs, done = queue.SimpleQueue(), queue.SimpleQueue()
    for job in waiting.items():
        jobs.put(job)
    # Daemons, not a ThreadPoolExecutor: its threads hold up the end of the process until the last answer has come.
    threads = [
        threading.Thread(target=_work, args=(asker, jobs, done), daemon=True)
        for _ in range(min(asker.args.parallel_requests, len(waiting)))
    ]
    initial = len(outcomes) - len(waiting)
    requests = failures = nonsense = 0
    with show_progress(
        total=len(outcomes), initial=initial, desc="asking", unit="picture", disable=not progress
    ) as bar:
        try:
            for thread in threads:
                thread.start()
            for _ in waiting:
                digest, outcome = done.get()
                outcomes[digest] = outcome
                requests += outcome.requests
                if outcome.status == "unasked":
                    continue
                bar.set_postfix_str(f"${asker.budget.spent:.4f}", refresh=False)
                bar.update()
                # What says nothing of the endpoint, or nothing of its answers, ends neither row.
                if outcome.came:
                    failures, nonsense = 0, nonsense + 1 if outcome.status == "malformed" else 0
                elif outcome.error is not None:
                    failures += 1
                _judge(asker, outcome, failures, nonsense)
        except BaseException:
            _wait_for(asker, threads)
            raise
    asker.close()
    failed = [outcome for outcome in outcomes.values() if outcome.error is not None]
    if failed and not any(outcome.came for outcome in outcomes.values()):
        give_up(asker.args, f"failed for every picture, the last: {failed[-1].why}")
    return requests


def _work(asker: Asker, jobs: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
    """One thread: one picture after another, until there is none."""
    while True:
        try:
            digest, item = jobs.get_nowait()
        except queue.Empty:
            return
        try:
            outcome = asker.ask(item, digest)
        except Exception as error:  # a picture that has changed, or a bug: raised where the answers are gathered
            outcome = Outcome("no_answer", error=error)
        if isinstance(outcome.error, InputError):  # a full disk, say: the next answer would be paid for and lost
            asker.stop.set()
        done.put((digest, outcome))


def _judge(asker: Asker, outcome: Outcome, failures: int, nonsense: int) -> None:
    """Raise `InputError` where it makes no sense to go on after this picture, and what is no fault of the endpoint."""
    if isinstance(outcome.error, InputError):
        raise outcome.error
    if outcome.error is not None:
        outcome.why = explain(outcome.error, asker.args)
    if failures >= FAILURES_IN_A_ROW:
        give_up(asker.args, f"failed for {failures} pictures in a row, the last: {outcome.why}")
    if nonsense >= NONSENSE_IN_A_ROW:
        give_up(asker.args, f"its answers about {nonsense} pictures in a row cannot be read, the last: {outcome.why}")


def _wait_for(asker: Asker, threads: list[threading.Thread]) -> None:
    """Begin nothing new, and give answers under way, which are paid for, the time to reach the ledger."""
    asker.stop.set()
    deadline = time.monotonic() + asker.args.request_seconds
    if any(thread.is_alive() for thread in threads):
        logger.warning("waiting for answers under way, which are paid for; Ctrl-C again leaves them")
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))


def _report(asker: Asker, outcomes: dict[str, Outcome]) -> str | None:
    """Say what a user should know; why asking ended early, or None."""
    args, left = asker.args, [outcome for outcome in outcomes.values() if not outcome.came]
    failed = [outcome for outcome in left if outcome.status == "no_answer"]
    if failed:
        logger.warning(
            "%d pictures got no answer, the last: %s; the same command asks about them again",
            len(failed),
            failed[-1].why,
        )
    if asker.estimated:
        logger.warning("%s: gives no token counts; they are estimated, on the high side", endpoint_url(args))
    if not asker.limit_reached:
        return None
    stopped = (
        f"--spending_limit_usd {args.spending_limit_usd:g}: ${asker.budget.spent:.4f} spent, earlier runs included, and no "
        f"room for another request; {len(left) - len(failed)} of {len(outcomes)} pictures were not asked about; raise it and "
        "run the same command again to go on"
    )
    logger.warning("%s", stopped)
    return stopped


def dry_run(
    items: Sequence[Item], args: "ApiArguments", num_questions: int, seed: int = 42, ledger: Ledger | None = None
) -> str:
    """The whole prompt of the first picture, and what the job would send and cost. Sends nothing, and needs no key.

    Raises `InputError`: wrong arguments, no picture, or one that cannot be read.
    """
    check_api(args)
    if not items:
        raise InputError("--dry_run: no picture to ask about")
    asked = Prompts(args, ledger, num_questions, seed)
    item = items[0]
    try:
        jpeg, (width, height) = prompts.encode_picture(item)
    except BadImage as bad:
        raise InputError(f"{item.path}: {bad.reason}") from bad
    system, user = asked.messages(item, prompts.digest_url(item))
    digests = {asked.digest(item): item for item in items}
    waiting = [item for digest, item in digests.items() if asked.outcome(digest) is None]
    bodies = [(asked.messages(item, ""), RESPONSE_FORMAT) for item in waiting]
    likely_in = sum(likely_input_tokens(*body) for body in bodies)
    most_in = sum(most_input_tokens(*body) for body in bodies)
    most_out = args.max_output_tokens * len(waiting)
    likely_out = min(TOKENS_A_QUESTION * num_questions * len(waiting), most_out)
    prices = args.usd_per_million_input_tokens, args.usd_per_million_output_tokens
    likely, most = (
        (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
        for tokens_in, tokens_out in ((likely_in, likely_out), (most_in, most_out))
    )
    cost = (
        f"about ${likely:,.2f}, at most ${most:,.2f} if every answer can be read"
        if any(prices)
        else "unknown without --usd_per_million_..._tokens"
    )
    minutes = len(waiting) / args.requests_per_minute
    return "\n".join(
        [
            f"To {args.api_model} at {endpoint_url(args)}, about {item.image_name}:",
            f"--- system\n{system['content']}",
            f"--- user\n{user['content'][0]['text']}",
            f"[picture: JPEG of {width}×{height} pixels, {len(jpeg):,} bytes, of the file with SHA-256 {item.digest}]",
            f"--- response_format\n{json.dumps(RESPONSE_FORMAT, indent=1)}",
            "---",
            f"requests: {len(waiting):,}, at least {minutes:,.1f} minutes; {len(digests) - len(waiting):,} are in the ledger",
            f"input tokens: about {likely_in:,}, at most {most_in:,}",
            f"output tokens: about {likely_out:,}, at most {most_out:,}",
            f"cost: {cost}",
        ]
    )
