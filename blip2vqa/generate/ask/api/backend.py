"""Questions from a chat endpoint that sees pictures, through the `openai` client: paid for once, kept in a ledger."""

import logging
import multiprocessing
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import IMapUnorderedIterator, ThreadPool

from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ask.api.client import give_up
from blip2vqa.generate.ask.api.endpoint import endpoint_url
from blip2vqa.generate.ask.api.requester import Requester
from blip2vqa.generate.ask.api.responses import Outcome, Responses
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question
from blip2vqa.utils.progress import show_progress

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 5  # pictures without an answer before the endpoint is given up
NONSENSE_IN_A_ROW = 10  # pictures whose answers, paid for, cannot be read
STATUSES = ("answered", "refused", "malformed", "no_answer", "unasked")


@dataclass
class ApiQuestions:
    """What the endpoint made of the pictures."""

    questions: list[Question]
    """In the order of the pictures."""
    counts: dict
    """Of this run: `requests`, answers that came in it, and `from_ledger`, pictures for which none was needed. Of the data
    set, whatever runs it took: pictures `answered`, `refused`, `malformed`, with `no_answer` and `unasked`; the `answers` that
    came about them, their `input_tokens`, `output_tokens` and `usd` (None without prices); `stopped`, why asking ended early,
    or None."""


def ask_api(
    items: Sequence[Item], args: ApiArguments, ledger: Ledger, num_questions: int, seed: int = 42
) -> ApiQuestions:
    """Ask the endpoint about every picture whose answer is not in `ledger`.

    An answer is in the ledger before it is counted: a run that was stopped, by whatever means, goes on where it was, and
    ends as it would have otherwise. Pictures with the same bytes and listing are asked about once. With another seed, model,
    number of questions or `max_output_tokens` a prompt is another one, asked anew.

    Raises `InputError`: an endpoint that cannot be reached, refuses the key, does not know the model, has no credit left,
    fails for five pictures in a row, or whose answers cannot be read; a picture that has changed; a full disk. On Ctrl-C,
    answers under way are waited for before KeyboardInterrupt is raised.
    """
    responses = Responses(args, ledger, num_questions, seed)
    digests = [responses.digest(item) for item in items]
    outcomes = {digest: responses.outcome(digest) for digest in digests}
    waiting = {digest: item for digest, item in zip(digests, items, strict=True) if outcomes[digest] is None}
    before = len(ledger.records())
    from_ledger = sum(outcomes[digest] is not None for digest in digests)
    stopped = None
    if waiting:
        requester = Requester(responses)
        _request_all(requester, waiting, outcomes)
        stopped = _report(requester, outcomes)
    counts = {"requests": len(ledger.records()) - before, "from_ledger": from_ledger}
    statuses = [outcomes[digest].status for digest in digests]
    counts |= {status: statuses.count(status) for status in STATUSES}
    records = [record for digest in outcomes for record in responses.attempts(digest).values() if record is not None]
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
    return ApiQuestions(questions, counts | {"stopped": stopped})


def _request_all(requester: Requester, waiting: dict[str, Item], outcomes: dict[str, Outcome | None]) -> None:
    """Ask about `waiting` in threads, and write what became of each picture to `outcomes`."""
    failures = nonsense = 0
    with (
        # Its threads are daemons. Those of ThreadPoolExecutor hold up the end of the process until the last answer has come.
        ThreadPool(min(requester.args.parallel_requests, len(waiting))) as pool,
        show_progress(total=len(outcomes), initial=len(outcomes) - len(waiting), desc="asking", unit="picture") as bar,
    ):
        arriving = pool.imap_unordered(lambda job: (job[0], requester.ask(*job)), waiting.items())
        try:
            for digest, outcome in arriving:
                outcomes[digest] = outcome
                if outcome.status == "unasked":
                    continue
                bar.set_postfix_str(f"${requester.budget.spent:.4f}")
                bar.update()
                # A picture that cannot be sent, and a failure between answers, end neither row.
                if outcome.came:
                    failures, nonsense = 0, nonsense + 1 if outcome.status == "malformed" else 0
                elif outcome.error is not None:
                    if not outcome.why:
                        raise outcome.error
                    failures += 1
                if failures >= FAILURES_IN_A_ROW:
                    give_up(requester.args, f"failed for {failures} pictures in a row, the last: {outcome.why}")
                if nonsense >= NONSENSE_IN_A_ROW:
                    what = f"its answers about {nonsense} pictures in a row cannot be read"
                    give_up(requester.args, f"{what}, the last: {outcome.why}")
        except BaseException:
            _wait_for_answers(requester, arriving)
            raise
    requester.client.close()
    failed = [outcome for outcome in outcomes.values() if outcome.error is not None]
    if failed and not any(outcome.came for outcome in outcomes.values()):
        give_up(requester.args, f"failed for every picture, the last: {failed[-1].why}")


def _wait_for_answers(requester: Requester, arriving: IMapUnorderedIterator) -> None:
    """Begin no request, and give the answers under way, which are paid for, the time to reach the ledger."""
    requester.stop.set()
    deadline = time.monotonic() + requester.args.request_seconds
    if requester.budget.under_way:
        logger.warning("waiting for answers under way, which are paid for; Ctrl-C again leaves them")
    with suppress(StopIteration, multiprocessing.TimeoutError):
        while True:
            arriving.next(max(0.0, deadline - time.monotonic()))


def _report(requester: Requester, outcomes: dict[str, Outcome]) -> str | None:
    """Warn of what a user should know; returns why asking ended early, or None."""
    args, left = requester.args, [outcome for outcome in outcomes.values() if not outcome.came]
    failed = [outcome for outcome in left if outcome.status == "no_answer"]
    if failed:
        logger.warning(
            "%d pictures got no answer, the last: %s; the same command asks about them again",
            len(failed), failed[-1].why,
        )  # fmt: skip
    if requester.estimated:
        logger.warning("%s: gives no token counts; they are estimated, on the high side", endpoint_url(args))
    if not requester.limit_reached:
        return None
    stopped = (
        f"--spending_limit_usd {args.spending_limit_usd:g}: ${requester.budget.spent:.4f} spent, earlier runs included, and no "
        f"room for another request; {len(left) - len(failed)} of {len(outcomes)} pictures were not asked about; raise it and "
        "run the same command again to go on"
    )
    logger.warning("%s", stopped)
    return stopped
