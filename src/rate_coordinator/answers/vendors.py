"""What is known of providers of language models."""

from __future__ import annotations

from rate_coordinator.answers.quantities import DURATION
from rate_coordinator.answers.rules import Clue, Provider, Verdict, Wait, Window

_TRY_AGAIN_IN = f"try again in {DURATION}"

OPENAI = Provider(
    name="openai",
    source="https://platform.openai.com/docs/guides/rate-limits https://platform.openai.com/docs/guides/error-codes",
    signs=(
        Clue("openai-*"),
        Clue("$.error.code", "^(?:insufficient_quota|rate_limit_exceeded|billing_hard_limit_reached|slow_down)$"),
        Clue("$.error.type", "^(?:insufficient_quota|usage_limit_reached)$"),
    ),
    verdicts=(
        # It is refused as 429, but however long one waits, it will be too large.
        Verdict(None, (Clue("$.error.message", "^Request too large"),)),
        # The allowance of a ChatGPT plan, as the Codex backend tells it.
        Verdict("quota", (Clue("$.error.type", "^usage_limit_reached$"),), scope="plan"),
        Verdict(
            "quota",
            (Clue("$.error.code", "^(?:insufficient_quota|billing_hard_limit_reached|billing_not_active)$"),),
            scope="account",
            heed_waits=False,
        ),
        Verdict("quota", (Clue("$.error.type", "^insufficient_quota$"),), scope="account", heed_waits=False),
        Verdict("overloaded", (Clue("$.error.code", "^(?:slow_down|server_overloaded)$"),)),
        Verdict("rate_limit", (Clue("$.error.type", "^tokens$"),), (429,), scope="tokens"),
        Verdict("rate_limit", (Clue("$.error.type", "^requests$"),), (429,), scope="requests"),
        # Told inside an answer that began as a success.
        Verdict("rate_limit", (Clue("$.error.code", "^rate_limit_exceeded$"),)),
    ),
    waits=(
        Wait("$.error.message", pattern=_TRY_AGAIN_IN),
        Wait("$.error.resets_in_seconds", "s"),
        Wait("$.error.resets_at", "epoch_s"),
    ),
)

AZURE = Provider(
    name="azure",
    aliases=("azure_openai",),
    source="https://learn.microsoft.com/azure/ai-services/openai/how-to/quota",
    signs=(Clue("apim-request-id"), Clue("x-ms-region"), Clue("$.error.message", "under Azure OpenAI API version")),
    verdicts=(
        Verdict("quota", (Clue("$.error.code", "^insufficient_quota$"),), scope="account", heed_waits=False),
        Verdict("rate_limit", (Clue("$.error.message", "token rate limit"),), (429,), scope="tokens"),
        Verdict("rate_limit", (Clue("$.error.message", "call rate limit"),), (429,), scope="requests"),
    ),
    waits=(
        Wait("x-ms-retry-after-ms", "ms"),
        Wait("$.error.message", pattern=f"(?:retry after|try again in) {DURATION}"),
    ),
)

ANTHROPIC = Provider(
    name="anthropic",
    source="https://docs.anthropic.com/en/api/rate-limits https://docs.anthropic.com/en/api/errors",
    signs=(
        Clue("anthropic-*"),
        Clue("$.error.type", "^overloaded_error$"),
        Clue("$.error.message", "credit balance is too low to access the Anthropic API"),
    ),
    verdicts=(
        Verdict("overloaded", (Clue("$.error.type", "^overloaded_error$"),)),
        Verdict("overloaded", (Clue("$.error.message", "^Overloaded$"),), (500, 502, 503, 529)),
        Verdict("quota", (Clue("$.error.message", "credit balance is too low"),), scope="account", heed_waits=False),
        Verdict("quota", (Clue("$.error.message", "reached your specified API usage limits"),), scope="account"),
        # The allowance of a subscription; how much is left of it is not told, only whether it is spent.
        Verdict(
            "quota",
            (Clue("anthropic-ratelimit-unified-status", "^rejected$"),),
            (429,),
            scope_from="anthropic-ratelimit-unified-representative-claim",
        ),
        Verdict("rate_limit", (Clue("$.error.message", r"\binput tokens per"),), (429,), scope="input-tokens"),
        Verdict("rate_limit", (Clue("$.error.message", r"\boutput tokens per"),), (429,), scope="output-tokens"),
        # Told in a stream that began as a success.
        Verdict("rate_limit", (Clue("$.error.type", "^rate_limit_error$"),)),
    ),
    waits=(Wait("$.error.message", pattern=r"regain access on (\d{4}-\d\d-\d\d at \d\d:\d\d UTC)"),),
    windows=(Window("anthropic-ratelimit-{scope}-{part}", state="anthropic-ratelimit-{scope}-status"),),
)

_GOOGLE_MESSAGE = f"(?:retry in|reset after|resets in) {DURATION}"

GOOGLE = Provider(
    name="google",
    aliases=("gemini", "vertex"),
    source="https://ai.google.dev/gemini-api/docs/rate-limits https://google.aip.dev/193 "
    "https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto",
    signs=(
        Clue("$.error.status", "^[A-Z_]+$"),
        Clue("$.error.details.*.@type", r"^type\.googleapis\.com/"),
        Clue("$.error.errors.*.domain", "^(?:global|usageLimits)$"),
    ),
    verdicts=(
        # Such a quota comes back at midnight. The delay that is told with it is that of a minute's limit.
        Verdict("quota", (Clue("$.error.details.*.violations.*.quotaId", "PerDay"),), scope="day", heed_waits=False),
        Verdict("quota", (Clue("$.error.details.*.metadata.quota_limit", "PerDay"),), scope="day", heed_waits=False),
        Verdict("quota", (Clue("$.error.message", r"\bper day\b"),), (403, 429), scope="day", heed_waits=False),
        # A model that the plan has nothing of at all.
        Verdict("quota", (Clue("$.error.message", r"\blimit: 0\b"),), (429,), scope="model", heed_waits=False),
        Verdict("quota", (Clue("$.error.details.*.reason", "^QUOTA_EXHAUSTED$"),), scope="model"),
        Verdict("quota", (Clue("$.error.message", "exhausted your capacity on this model"),), scope="model"),
        Verdict("overloaded", (Clue("$.error.details.*.reason", "^MODEL_CAPACITY_EXHAUSTED$"),), scope="model"),
        Verdict(
            "quota",
            (Clue("$.error.errors.*.reason", "^(?:dailyLimitExceeded|quotaExceeded)$"),),
            (403, 429),
            heed_waits=False,
        ),
        Verdict("rate_limit", (Clue("$.error.errors.*.reason", "^(?:userRateLimitExceeded|rateLimitExceeded)$"),)),
        Verdict("rate_limit", (Clue("$.error.status", "^RESOURCE_EXHAUSTED$"),)),
        Verdict("overloaded", (Clue("$.error.status", "^UNAVAILABLE$"),)),
    ),
    waits=(
        Wait("$.error.details.*.retryDelay"),
        Wait("$.error.details.*.metadata.quotaResetDelay"),
        Wait("$.error.details.*.metadata.quotaResetTimeStamp", "moment"),
        Wait("$.error.message", pattern=_GOOGLE_MESSAGE),
    ),
)

MISTRAL = Provider(
    name="mistral",
    source="https://docs.mistral.ai/deployment/ai-studio/tier https://github.com/mistralai/client-ts/issues/169",
    signs=(
        Clue("x-ratelimit-tokens-query-cost"),
        Clue("$.raw_status_code"),
        Clue("$.message", "^Service tier capacity exceeded"),
    ),
    verdicts=(
        Verdict("overloaded", (Clue("$.message", "^Service tier capacity exceeded"),), scope="model"),
        Verdict("overloaded", (Clue("$.code", "^3505$"),), scope="model"),
        Verdict("rate_limit", (Clue("$.message", "^Requests rate limit exceeded"),), scope="req-minute"),
    ),
)

COHERE = Provider(
    name="cohere",
    source="https://docs.cohere.com/docs/rate-limits https://docs.cohere.com/reference/errors",
    signs=(Clue("$.message", "^You are using a Trial key|^trial token rate limit exceeded"),),
    verdicts=(
        Verdict("quota", (Clue("$.message", r"calls ?/ ?month|per month"),), (429,), heed_waits=False),
        Verdict("rate_limit", (Clue("$.message", "token rate limit"),), (429,), scope="tokens"),
    ),
)

GROQ = Provider(
    name="groq",
    source="https://console.groq.com/docs/rate-limits https://console.groq.com/docs/errors",
    signs=(Clue("x-groq-*"), Clue("$.error.message", r"\bconsole\.groq\.com\b"), Clue("$.x_groq")),
    verdicts=(
        Verdict(None, (Clue("$.error.message", "^Request too large"),)),
        Verdict("overloaded", statuses=(498,), scope="flex"),
        # The headers speak of tokens of a minute and of requests of a day.
        Verdict("rate_limit", (Clue("$.error.message", r"tokens per day \(TPD\)"),), (429,), scope="tokens-day"),
        Verdict("rate_limit", (Clue("$.error.message", r"tokens per minute \(TPM\)"),), (429,), scope="tokens"),
        Verdict("rate_limit", (Clue("$.error.message", r"requests per day \(RPD\)"),), (429,), scope="requests"),
        Verdict(
            "rate_limit", (Clue("$.error.message", r"requests per minute \(RPM\)"),), (429,), scope="requests-minute"
        ),
    ),
    waits=(Wait("$.error.message", pattern=_TRY_AGAIN_IN),),
)

OPENROUTER = Provider(
    name="openrouter",
    source="https://openrouter.ai/docs/api/reference/limits https://openrouter.ai/docs/api/reference/errors-and-debugging",
    signs=(
        Clue("$.error.metadata.headers.X-RateLimit-Reset"),
        Clue("$.error.metadata.provider_name"),
        Clue("$.error.metadata.limit_source"),
        Clue("$.error.message", "^Rate limit exceeded: free-models-per-"),
        Clue("$.error.message", r"\bopenrouter\.ai/"),
    ),
    verdicts=(
        Verdict("quota", (Clue("$.error.message", "free-models-per-day"),), scope="free-models-per-day"),
        Verdict("quota", (Clue("$.error.code", "^402$"),), scope="account", heed_waits=False),
        Verdict("rate_limit", (Clue("$.error.message", "free-models-per-min"),), scope="free-models-per-min"),
        Verdict("rate_limit", (Clue("$.error.metadata.raw", "rate-limited upstream"),), scope="provider"),
        # Told inside a 200 once a stream has begun.
        Verdict("rate_limit", (Clue("$.error.code", "^429$"),)),
        Verdict("overloaded", (Clue("$.error.code", "^(?:503|529)$"),)),
    ),
    windows=(Window("$.error.metadata.headers.X-RateLimit-{Part}", "epoch_ms"),),
)

HUGGING_FACE = Provider(
    name="huggingface",
    aliases=("hf",),
    source="https://huggingface.co/docs/hub/rate-limits https://huggingface.co/docs/inference-providers/pricing",
    signs=(
        Clue("$.error", "exceeded your monthly included credits"),
        Clue("$.error", r"^Model \S+ is currently loading"),
    ),
    verdicts=(
        Verdict("quota", (Clue("$.error", "exceeded your monthly included credits"),), scope="month", heed_waits=False),
        Verdict("overloaded", (Clue("$.error", "currently loading"),), (503,), scope="model"),
    ),
    waits=(Wait("$.estimated_time", "s"),),
)

VENDORS = (GROQ, OPENROUTER, AZURE, OPENAI, ANTHROPIC, GOOGLE, MISTRAL, COHERE, HUGGING_FACE)
"""In the order in which they are asked where several know an answer: many write theirs as OpenAI does."""
