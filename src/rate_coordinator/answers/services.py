"""What is known of other services: code hosts, chats, shops, clouds, exchanges."""

from __future__ import annotations

from rate_coordinator.answers.look import Look
from rate_coordinator.answers.quantities import DURATION, read_number
from rate_coordinator.answers.rules import Clue, Level, Provider, Verdict, Wait, Window

_THROTTLED = (
    "Throttling|ThrottlingException|ThrottledException|RequestThrottledException|RequestThrottled|"
    "TooManyRequestsException|TooManyRequests|ProvisionedThroughputExceededException|RequestLimitExceeded|"
    "BandwidthLimitExceeded|LimitExceededException|SlowDown|EC2ThrottledException|PriorRequestNotComplete"
)
# Plain, with its namespace before it, or with a link behind it.
_THROTTLED_CODE = rf"^(?:[\w.]+#)?(?:{_THROTTLED})(?::.*)?$"
# Only where an error is all there is: an object that is fetched may contain anything.
_THROTTLED_XML = (
    r"^\s*(?:<\?xml[^>]{0,100}\?>\s*)?<(?:Error|ErrorResponse|Response)\b(?s:.){0,300}?"
    rf"<Code>(?:{_THROTTLED})</Code>"
)

AWS = Provider(
    name="aws",
    aliases=("amazon", "bedrock"),
    source="https://github.com/boto/botocore/blob/develop/botocore/retries/standard.py "
    "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
    signs=(Clue("x-amzn-*"), Clue("x-amz-*"), Clue("$.__type", _THROTTLED_CODE)),
    verdicts=(
        Verdict("quota", (Clue("$.message", "tokens per day"),), (400, 429), scope="tokens-day", heed_waits=False),
        Verdict("rate_limit", (Clue("x-amzn-errortype", _THROTTLED_CODE),)),
        Verdict("rate_limit", (Clue("$.__type", _THROTTLED_CODE),)),
        Verdict("rate_limit", (Clue("$.code", _THROTTLED_CODE),)),
        Verdict("rate_limit", (Clue("$", _THROTTLED_XML),)),
    ),
)

GITHUB = Provider(
    name="github",
    source="https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api",
    signs=(
        Clue("x-github-request-id"),
        Clue("x-github-media-type"),
        Clue("$.documentation_url", r"^https://(?:docs|developer)\.github\.com/"),
    ),
    verdicts=(
        Verdict("rate_limit", (Clue("$.message", "secondary rate limit|abuse detection"),), (403, 429), "secondary"),
        Verdict("rate_limit", (Clue("$.message", "rate limit"),), (403, 429), scope_from="x-ratelimit-resource"),
        Verdict("rate_limit", (Clue("$.errors.*.type", "^RATE_LIMITED$"),), (200,), scope_from="x-ratelimit-resource"),
        # Without a word: the headers tell it from a lack of permission.
        Verdict("rate_limit", (Clue("retry-after"), Clue("$.message", missing=True)), (403,), "secondary"),
        Verdict(
            "rate_limit",
            (Clue("x-ratelimit-remaining", "^0$"), Clue("$.message", missing=True)),
            (403,),
            scope_from="x-ratelimit-resource",
        ),
    ),
    windows=(Window("x-ratelimit-{part}", "epoch_s", scope_from="x-ratelimit-resource"),),
)

GITLAB = Provider(
    name="gitlab",
    source="https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/",
    signs=(Clue("ratelimit-resettime"), Clue("gitlab-lb"), Clue("x-gitlab-*")),
    windows=(Window("ratelimit-{part}", scope_from="ratelimit-name"),),
)

SLACK = Provider(
    name="slack",
    source="https://docs.slack.dev/apis/web-api/rate-limits",
    signs=(Clue("x-slack-*"), Clue("$.error", "^ratelimited$")),
    verdicts=(Verdict("rate_limit", (Clue("$.error", "^(?:ratelimited|rate_limited)$"),)),),
)

DISCORD = Provider(
    name="discord",
    source="https://docs.discord.com/developers/topics/rate-limits",
    signs=(
        Clue("x-ratelimit-bucket"),
        Clue("x-ratelimit-scope"),
        Clue("x-ratelimit-global"),
        Clue("$.message", r"^You are being rate limited\.$"),
    ),
    verdicts=(
        Verdict("rate_limit", (Clue("x-ratelimit-global", "true"),), (429,), scope="global"),
        Verdict("rate_limit", (Clue("$.global", "^true$"),), (429,), scope="global"),
        Verdict("rate_limit", (Clue("x-ratelimit-scope"),), (429,), scope_from="x-ratelimit-scope"),
    ),
    waits=(Wait("$.retry_after", "s"),),
    windows=(
        Window("x-ratelimit-{part}", "s", reset="x-ratelimit-reset-after"),
        Window("x-ratelimit-{part}", "epoch_s"),
    ),
)

TELEGRAM = Provider(
    name="telegram",
    source="https://core.telegram.org/bots/api#responseparameters",
    signs=(Clue("$.error_code", "^[0-9]{3}$"),),
    verdicts=(Verdict("rate_limit", (Clue("$.error_code", "^429$"),)),),
    waits=(Wait("$.parameters.retry_after", "s"), Wait("$.description", "s", "retry after ([0-9]+)$")),
)

STRIPE = Provider(
    name="stripe",
    source="https://docs.stripe.com/rate-limits https://docs.stripe.com/error-codes",
    signs=(Clue("stripe-*"), Clue("$.error.doc_url", r"^https://(?:docs\.)?stripe\.com/")),
    verdicts=(
        # Another call holds the same object: no other call is in its way.
        Verdict(None, (Clue("$.error.code", "^lock_timeout$"),)),
        Verdict("rate_limit", (Clue("stripe-rate-limited-reason"),), (429,), scope_from="stripe-rate-limited-reason"),
        Verdict("rate_limit", (Clue("$.error.code", "^rate_limit$"),)),
    ),
)


def _cost_wait(look: Look) -> tuple[float, str] | None:
    """Return how long it takes until a query's cost is there: the cost that is missing by the rate that restores it."""
    status = "$.extensions.cost.throttleStatus"
    wanted = look.number("$.extensions.cost.requestedQueryCost")
    available, rate = look.number(f"{status}.currentlyAvailable"), look.number(f"{status}.restoreRate")
    if wanted is None or available is None or not rate or wanted <= available:
        return None
    return (wanted - available) / rate, status


def _cost_level(look: Look) -> list[Level]:
    status = "$.extensions.cost.throttleStatus"
    available, whole = look.number(f"{status}.currentlyAvailable"), look.number(f"{status}.maximumAvailable")
    rate = look.number(f"{status}.restoreRate")
    if available is None:
        return []
    reset = (whole - available) / rate if whole is not None and rate and whole >= available else None
    return [Level("cost", available, whole, reset, status)]


def _bucket_level(look: Look) -> list[Level]:
    place = "x-shopify-shop-api-call-limit"
    used, _, size = next(iter(look.texts(place)), "").partition("/")
    calls, most = read_number(used), read_number(size)
    if calls is None or most is None or calls > most:
        return []
    return [Level("requests", most - calls, most, None, place, calls == most)]


SHOPIFY = Provider(
    name="shopify",
    source="https://shopify.dev/docs/api/usage/limits",
    signs=(Clue("x-shopify-*"), Clue("x-shopid"), Clue("$.extensions.cost.throttleStatus.restoreRate")),
    verdicts=(
        Verdict("rate_limit", (Clue("$.errors.*.extensions.code", "^THROTTLED$"),), scope="cost"),
        Verdict("rate_limit", (Clue("$.errors.*.message", "^Throttled$"),), scope="cost"),
    ),
    waits=(_cost_wait,),
    windows=(_cost_level, _bucket_level),
)

REDDIT = Provider(
    name="reddit",
    source="https://support.reddithelp.com/hc/en-us/articles/16160319875092-Reddit-Data-API-Wiki "
    "https://github.com/praw-dev/praw/blob/main/praw/exceptions.py",
    signs=(Clue("$.json.errors.*.0"), Clue("x-reddit-*")),
    verdicts=(Verdict("rate_limit", (Clue("$.json.errors.*.0", "^RATELIMIT$"),)),),
    waits=(
        Wait("$.json.ratelimit", "s"),
        Wait("$.json.errors.*.1", pattern=f"(?:try again in|break for) {DURATION}"),
    ),
    windows=(Window("x-ratelimit-{part}", "s"),),
)

TWITTER = Provider(
    name="twitter",
    aliases=("x",),
    source="https://docs.x.com/x-api/fundamentals/rate-limits https://docs.x.com/x-api/fundamentals/post-cap",
    signs=(
        Clue("x-access-level"),
        Clue("x-twitter-*"),
        Clue("$.title", "^UsageCapExceeded$"),
        Clue("$.type", r"^https://api\.(?:x|twitter)\.com/2/problems/"),
    ),
    verdicts=(
        Verdict(
            "quota",
            (Clue("$.title", "^UsageCapExceeded$"),),
            (429,),
            scope_from="$.period",
            heed_waits=False,
        ),
        Verdict("rate_limit", (Clue("$.errors.*.code", "^88$"),)),
    ),
    windows=(
        Window("x-rate-limit-{part}", "epoch_s"),
        Window("x-app-limit-24hour-{part}", "epoch_s", scope="app-24hour"),
        Window("x-user-limit-24hour-{part}", "epoch_s", scope="user-24hour"),
    ),
)

NOTION = Provider(
    name="notion",
    source="https://developers.notion.com/reference/request-limits https://developers.notion.com/reference/status-codes",
    signs=(Clue("$.code", "^(?:rate_limited|service_unavailable)$"),),
    verdicts=(Verdict("rate_limit", (Clue("$.code", "^rate_limited$"),)),),
)

CLOUDFLARE = Provider(
    name="cloudflare",
    source="https://developers.cloudflare.com/fundamentals/api/reference/limits/ "
    "https://developers.cloudflare.com/analytics/graphql-api/errors/",
    signs=(
        Clue("cf-auditlog-id"),
        Clue("$.errors.*.message", "^rate limiter budget depleted"),
        Clue("$", r"^\s*error code: 1015\b"),
    ),
    verdicts=(
        Verdict("rate_limit", (Clue("$.errors.*.message", "^rate limiter budget depleted"),), scope="budget"),
        # Whoever runs the site behind it limits an address.
        Verdict("rate_limit", (Clue("$", r"^\s*error code: 1015\b"),), (429,), scope="ip"),
    ),
    waits=(Wait("$.errors.*.message", pattern=f"try again after {DURATION}"),),
)

BINANCE = Provider(
    name="binance",
    source="https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits "
    "https://developers.binance.com/docs/binance-spot-api-docs/errors",
    signs=(Clue("x-mbx-*"), Clue("$.code", "^-1003$")),
    verdicts=(
        Verdict("rate_limit", (Clue("$.code", "^-1015$"),), scope="orders"),
        Verdict("rate_limit", (Clue("$.code", "^-1003$"),), scope="ip"),
        # Who goes on after a 429 is banned.
        Verdict("rate_limit", statuses=(418,), scope="ip"),
        Verdict("overloaded", (Clue("$.code", "^-1008$"),)),
    ),
    waits=(Wait("$.msg", "epoch_ms", r"banned until ([0-9]{13})"),),
)

SERVICES = (
    AWS,
    GITHUB,
    GITLAB,
    SLACK,
    DISCORD,
    TELEGRAM,
    STRIPE,
    SHOPIFY,
    REDDIT,
    TWITTER,
    NOTION,
    CLOUDFLARE,
    BINANCE,
)
"""In the order in which they are asked where several know an answer."""
