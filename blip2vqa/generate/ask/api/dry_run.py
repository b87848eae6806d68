"""Show what --backend api would send and what it would cost. Nothing is sent, and no key is needed."""

import json
from collections.abc import Sequence

from blip2vqa.config.generate import ApiArguments
from blip2vqa.data.images import BadImage
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ask.api.endpoint import endpoint_url
from blip2vqa.generate.ask.api.limits import likely_input_tokens, most_input_tokens
from blip2vqa.generate.ask.api.responses import Responses
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item
from blip2vqa.utils.errors import InputError

TOKENS_A_QUESTION = 30  # with its answer, type and the JSON around them


def dry_run(items: Sequence[Item], args: ApiArguments, ledger: Ledger | dict, num_questions: int, seed: int) -> str:
    """Show the whole prompt of the first picture, the number of requests, and their tokens and cost.

    Raises `InputError` without a picture, or for one that cannot be read.
    """
    if not items:
        raise InputError("--dry_run: no picture to ask about")
    responses, item = Responses(args, ledger, num_questions, seed), items[0]
    try:
        jpeg, (width, height) = prompts.encode_picture(item)
    except BadImage as bad:
        raise InputError(f"{item.path}: {bad.reason}") from bad
    system, user = responses.messages(item, prompts.digest_url(item))
    digests = {responses.digest(item): item for item in items}
    waiting = [responses.messages(item, "") for digest, item in digests.items() if responses.outcome(digest) is None]
    likely_in, most_in = sum(map(likely_input_tokens, waiting)), sum(map(most_input_tokens, waiting))
    most_out = args.max_output_tokens * len(waiting)
    likely_out = min(TOKENS_A_QUESTION * num_questions * len(waiting), most_out)
    price_in, price_out = args.usd_per_million_input_tokens, args.usd_per_million_output_tokens
    likely = (likely_in * price_in + likely_out * price_out) / 1e6
    most = (most_in * price_in + most_out * price_out) / 1e6
    cost = f"about ${likely:,.2f}, at most ${most:,.2f} if every answer can be read"
    if not (price_in or price_out):
        cost = "unknown without --usd_per_million_..._tokens"
    minutes = len(waiting) / args.requests_per_minute
    lines = [
        f"To {args.api_model} at {endpoint_url(args)}, about {item.image_name}:",
        f"--- system\n{system['content']}",
        f"--- user\n{user['content'][0]['text']}",
        f"[picture: JPEG of {width}×{height} pixels, {len(jpeg):,} bytes, of the file with SHA-256 {item.digest}]",
        f"--- response_format\n{json.dumps(prompts.RESPONSE_FORMAT, indent=1)}",
        "---",
        f"requests: {len(waiting):,}, at least {minutes:,.1f} minutes; {len(digests) - len(waiting):,} are in the ledger",
        f"input tokens: about {likely_in:,}, at most {most_in:,}",
        f"output tokens: about {likely_out:,}, at most {most_out:,}",
        f"cost: {cost}",
    ]
    return "\n".join(lines)
