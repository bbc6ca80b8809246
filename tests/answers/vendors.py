"""Samples of providers of language models."""

from __future__ import annotations

from tests.answers.samples import NOT_LIMITED, NOW_S, Sample

OPENAI_DOCS = "https://platform.openai.com/docs/guides/rate-limits"
ANTHROPIC_DOCS = "https://docs.anthropic.com/en/api/rate-limits"
GEMINI_DOCS = "https://ai.google.dev/gemini-api/docs/rate-limits"
GROQ_DOCS = "https://console.groq.com/docs/rate-limits"
OPENAI_HEADERS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}


def google(message: str, *details: dict[str, object], status: str = "RESOURCE_EXHAUSTED", code: int = 429) -> object:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def rpc(kind: str, **fields: object) -> dict[str, object]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


QUOTA = "You exceeded your current quota, please check your plan and billing details."

OPENAI = [
    Sample(
        "openai-tokens",
        "https://github.com/openinterpreter/openinterpreter/issues/408",
        429,
        (True, "rate_limit", 6.780999999, "tokens"),
        {"openai-version": "2020-10-01"},
        {
            "error": {
                "message": "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 6000, Used 3513, Requested "
                "3166. Please try again in 6.780999999s. Visit https://platform.openai.com/account/rate-limits.",
                "type": "tokens",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        },
    ),
    Sample(
        "openai-documented-headers-when-tokens-are-spent",
        OPENAI_DOCS,
        429,
        (True, "rate_limit", 360.0, "tokens"),
        OPENAI_HEADERS | {"x-ratelimit-remaining-tokens": "0"},
    ),
    Sample("openai-documented-headers-of-a-success", OPENAI_DOCS, 200, NOT_LIMITED, OPENAI_HEADERS),
    Sample(
        "openai-no-credit",
        "https://github.com/langchain-ai/langchainjs/issues/1929",
        429,
        (True, "quota", None, "account"),
        OPENAI_HEADERS | {"x-ratelimit-remaining-requests": "0"},
        {
            "error": {
                "message": QUOTA,
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
    ),
    Sample(
        "openai-one-request-too-large",
        "https://github.com/vanderschaarlab/climb/issues/1",
        429,
        NOT_LIMITED,
        {},
        {
            "error": {
                "message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
                "Requested 30601. The input or output tokens must be reduced in order to run successfully.",
                "type": "tokens",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        },
    ),
    Sample(
        "openai-overloaded",
        "https://platform.openai.com/docs/guides/error-codes",
        503,
        (True, "overloaded", None, None),
        {"openai-processing-ms": "3"},
        {"error": {"message": "Slow Down", "type": "service_unavailable_error", "code": "slow_down"}},
    ),
    Sample(
        "codex-plan",
        "https://github.com/openai/codex/blob/main/codex-rs/codex-api/src/api_bridge.rs",
        429,
        (True, "quota", 511860.0, "plan"),
        {},
        {
            "error": {
                "type": "usage_limit_reached",
                "message": "The usage limit has been reached",
                "plan_type": "plus",
                "resets_at": NOW_S + 511860,
                "resets_in_seconds": 511860,
            }
        },
    ),
]

AZURE = [
    Sample(
        "azure-tokens",
        "https://github.com/openai/openai-node/issues/1108",
        429,
        (True, "rate_limit", 32.5, "tokens"),
        {"apim-request-id": "x", "retry-after": "33", "retry-after-ms": "32500"},
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version "
                "2024-02-15-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please "
                "retry after 33 seconds. Please go here: https://aka.ms/oai/quotaincrease",
            }
        },
    ),
    Sample(
        "azure-the-body-alone",
        "https://github.com/Azure-Samples/graphrag-accelerator/issues/129",
        429,
        (True, "rate_limit", 50.0, None),
        {},
        {"error": {"code": "429", "message": "Rate limit is exceeded. Try again in 50 seconds."}},
        "azure",
    ),
    Sample(
        "azure-no-such-deployment",
        "https://learn.microsoft.com/azure/ai-services/openai/how-to/quota",
        404,
        NOT_LIMITED,
        {"apim-request-id": "x", "x-ratelimit-remaining-requests": "0"},
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
    ),
]

ANTHROPIC_HEADERS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-06-01T12:00:02Z",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-06-01T12:00:41Z",
}
ANTHROPIC = [
    Sample(
        "anthropic-input-tokens",
        "https://github.com/FoundationAgents/OpenManus/issues/746",
        429,
        (True, "rate_limit", 41.0, "input-tokens"),
        ANTHROPIC_HEADERS | {"retry-after": "38"},
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "This request would exceed the rate limit for your organization of 20,000 input tokens per "
                "minute. For details, refer to: https://docs.anthropic.com/en/api/rate-limits.",
            },
        },
    ),
    Sample("anthropic-success", ANTHROPIC_DOCS, 200, NOT_LIMITED, ANTHROPIC_HEADERS),
    Sample(
        "anthropic-overloaded",
        "https://github.com/anthropics/claude-code/issues/5769",
        529,
        (True, "overloaded", None, None),
        {"x-should-retry": "true"},
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
    ),
    Sample(
        "anthropic-overloaded-as-500",
        "https://github.com/anthropics/claude-code/issues/4248",
        500,
        (True, "overloaded", None, None),
        {"anthropic-organization-id": "x"},
        {"type": "error", "error": {"type": "api_error", "message": "Overloaded"}},
    ),
    Sample(
        "anthropic-overloaded-within-a-stream",
        "https://docs.anthropic.com/en/api/streaming#error-events",
        200,
        (True, "overloaded", None, None),
        {"content-type": "text/event-stream"},
        'event: message_start\ndata: {"type": "message_start"}\n\nevent: error\n'
        'data: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
    ),
    Sample(
        "anthropic-five-hours-of-a-subscription",
        "https://github.com/lidge-jun/opencodex/pull/3809",
        429,
        (True, "quota", 7999.0, "five_hour"),
        {
            "retry-after": "7999",
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-5h-status": "rejected",
            "anthropic-ratelimit-unified-5h-reset": str(NOW_S + 7999),
            "anthropic-ratelimit-unified-7d-status": "allowed",
            "anthropic-ratelimit-unified-7d-reset": str(NOW_S + 400_000),
        },
        {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your account's"}},
    ),
    Sample(
        "anthropic-spend-limit",
        "https://docs.anthropic.com/en/api/rate-limits#spend-limits",
        400,
        (True, "quota", 29.5 * 86400, "account"),
        {"anthropic-organization-id": "x"},
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "You have reached your specified API usage limits. You will regain access on 2026-07-01 at "
                "00:00 UTC.",
            },
        },
    ),
    Sample(
        "anthropic-no-credit",
        "https://docs.anthropic.com/en/api/errors",
        400,
        (True, "quota", None, "account"),
        {},
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
            },
        },
    ),
    Sample(
        "anthropic-permission",
        "https://docs.anthropic.com/en/api/errors",
        403,
        NOT_LIMITED,
        ANTHROPIC_HEADERS,
        {"type": "error", "error": {"type": "permission_error", "message": "Your API key does not have permission."}},
    ),
]

PER_MINUTE = "GenerateContentPaidTierInputTokensPerModelPerMinute"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
GOOGLE = [
    Sample(
        "gemini-minute",
        "https://github.com/browserbase/mcp-server-browserbase/issues/129",
        429,
        (True, "rate_limit", 47.434392449, None),
        {},
        google(
            f"{QUOTA} \n* Quota exceeded for metric: generativelanguage.googleapis.com/x, limit: 4000000\nPlease retry "
            "in 47.434392449s.",
            rpc("QuotaFailure", violations=[{"quotaId": PER_MINUTE, "quotaValue": "4000000"}]),
            rpc("RetryInfo", retryDelay="47s"),
        ),
    ),
    Sample(
        "gemini-day-with-the-delay-of-a-minute",
        "https://github.com/UKGovernmentBEIS/inspect_ai/issues/5526",
        429,
        (True, "quota", None, "day"),
        {},
        google(
            QUOTA,
            rpc("QuotaFailure", violations=[{"quotaId": PER_DAY, "quotaValue": "20"}]),
            rpc("RetryInfo", retryDelay="26s"),
        ),
    ),
    Sample(
        "gemini-code-assist-day",
        "https://github.com/google-gemini/gemini-cli/issues/10925",
        429,
        (True, "quota", None, "day"),
        {},
        google(
            "Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Gemini 2.5 Pro Requests per day per "
            "user per tier' of service 'cloudcode-pa.googleapis.com'.",
            rpc("ErrorInfo", reason="RATE_LIMIT_EXCEEDED", metadata={"quota_limit": "Gemini25ProRequestsPerDay"}),
        ),
    ),
    Sample(
        "gemini-code-assist-quota",
        "https://github.com/earendil-works/pi/issues/2851",
        429,
        (True, "quota", 45256.0, "model"),
        {},
        google("You have exhausted your capacity on this model. Your quota will reset after 12h34m16s."),
    ),
    Sample(
        "gemini-no-capacity-in-a-list",
        "https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/utils/googleQuotaErrors.ts",
        429,
        (True, "overloaded", None, "model"),
        {},
        [
            google(
                "No capacity available for model gemini-3-flash-preview on the server",
                rpc("ErrorInfo", reason="MODEL_CAPACITY_EXHAUSTED", metadata={"model": "gemini-3-flash-preview"}),
            )
        ],
    ),
    Sample(
        "vertex-exhausted",
        "https://github.com/google-gemini/gemini-cli/issues/14811",
        429,
        (True, "rate_limit", None, None),
        {},
        google("Resource exhausted. Please try again later. Please refer to https://cloud.google.com/error-code-429"),
    ),
    Sample(
        "google-403-that-is-a-rate-limit",
        "https://developers.google.com/workspace/drive/api/guides/handle-errors",
        403,
        (True, "rate_limit", None, None),
        {},
        {
            "error": {
                "code": 403,
                "message": "User Rate Limit Exceeded",
                "errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded"}],
            }
        },
    ),
    Sample(
        "gemini-unavailable",
        "https://ai.google.dev/gemini-api/docs/troubleshooting",
        503,
        (True, "overloaded", None, None),
        {},
        google("The model is overloaded. Please try again later.", status="UNAVAILABLE", code=503),
    ),
    Sample(
        "gemini-permission",
        "https://ai.google.dev/gemini-api/docs/troubleshooting",
        403,
        NOT_LIMITED,
        {},
        google("Your API key doesn't have the required permissions.", status="PERMISSION_DENIED", code=403),
    ),
]

OTHERS = [
    Sample(
        "mistral-requests",
        "https://github.com/raycast/extensions/issues/31107",
        429,
        (True, "rate_limit", None, None),
        {},
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
    ),
    Sample(
        "mistral-no-capacity",
        "https://github.com/continuedev/continue/issues/6185",
        429,
        (True, "overloaded", None, "model"),
        {},
        {"object": "error", "message": "Service tier capacity exceeded for this model.", "type": "x", "code": None},
    ),
    Sample(
        "mistral-success",
        "https://github.com/mistralai/client-ts/issues/169",
        200,
        NOT_LIMITED,
        {
            "x-ratelimit-limit-tokens-minute": "5000000",
            "x-ratelimit-remaining-tokens-minute": "4999911",
            "x-ratelimit-tokens-query-cost": "52",
            "x-ratelimit-limit-req-minute": "720",
            "x-ratelimit-remaining-req-minute": "717",
        },
    ),
    Sample(
        "cohere-minute",
        "https://www.developersdigest.tech/errors/api/cohere-api/429-too-many-requests",
        429,
        (True, "rate_limit", None, None),
        {},
        {"message": "You are using a Trial key, which is limited to 40 API calls / minute."},
    ),
    Sample(
        "cohere-month",
        "https://docs.cohere.com/docs/rate-limits",
        429,
        (True, "quota", None, None),
        {},
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
    ),
    Sample(
        "cohere-bad-request", "https://docs.cohere.com/reference/errors", 400, NOT_LIMITED, {}, {"message": "invalid"}
    ),
    Sample(
        "groq-day",
        "https://github.com/continuedev/continue/issues/10920",
        429,
        (True, "rate_limit", 578.016, "tokens-day"),
        {
            "x-groq-region": "x",
            "x-ratelimit-remaining-tokens": "12000",
            "x-ratelimit-reset-tokens": "7.66s",
            "retry-after": "579",
        },
        {
            "error": {
                "message": "Rate limit reached for model `llama-3.3-70b-versatile` on tokens per day (TPD): Limit "
                "100000, Used 97050, Requested 3619. Please try again in 9m38.016s. Need more tokens? Upgrade at "
                "https://console.groq.com/settings/billing",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    ),
    Sample(
        "groq-success",
        GROQ_DOCS,
        200,
        NOT_LIMITED,
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "2m59.56s",
        },
    ),
    Sample(
        "openrouter-day",
        "https://github.com/Gitlawb/openclaude/issues/936",
        429,
        (True, "quota", 43200.0, "free-models-per-day"),
        {},
        {
            "error": {
                "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free requests",
                "code": 429,
                "metadata": {
                    "headers": {
                        "X-RateLimit-Limit": "50",
                        "X-RateLimit-Remaining": "0",
                        "X-RateLimit-Reset": str((NOW_S + 43200) * 1000),
                    }
                },
            }
        },
    ),
    Sample(
        "openrouter-within-a-200",
        "https://openrouter.ai/docs/api/reference/errors-and-debugging",
        200,
        (True, "rate_limit", None, "provider"),
        {},
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"provider_name": "X", "raw": "m:free is temporarily rate-limited upstream."},
            }
        },
    ),
    Sample(
        "openrouter-no-credit",
        "https://openrouter.ai/docs/api/reference/errors-and-debugging",
        402,
        (True, "quota", None, "account"),
        {},
        {"error": {"code": 402, "message": "Insufficient credits. Add more using https://openrouter.ai/credits"}},
    ),
    Sample(
        "openrouter-moderation",
        "https://openrouter.ai/docs/api/reference/errors-and-debugging",
        403,
        NOT_LIMITED,
        {},
        {"error": {"code": 403, "message": "Input flagged", "metadata": {"provider_name": "X", "reasons": ["x"]}}},
    ),
    Sample(
        "huggingface-hub",
        "https://newreleases.io/project/pypi/huggingface-hub/release/1.2.0",
        429,
        (True, "rate_limit", 55.0, "api"),
        {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=2500;w=300'},
    ),
    Sample(
        "huggingface-month",
        "https://huggingface.co/docs/inference-providers/pricing",
        402,
        (True, "quota", None, "month"),
        {},
        {"error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO."},
    ),
    Sample(
        "huggingface-loading",
        "https://huggingface.co/docs/api-inference/detailed_parameters",
        503,
        (True, "overloaded", 20.0, "model"),
        {},
        {"error": "Model gpt2 is currently loading", "estimated_time": 20.0},
    ),
    Sample(
        "huggingface-gated",
        "https://huggingface.co/docs/hub/models-gated",
        403,
        NOT_LIMITED,
        {"RateLimit": '"api";r=0;t=9'},
    ),
]

VENDORS = [*OPENAI, *AZURE, *ANTHROPIC, *GOOGLE, *OTHERS]
