"""Samples of other services."""

from __future__ import annotations

from tests.answers.samples import NOT_LIMITED, NOW_S, Sample

GITHUB_DOCS = "https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api"
GITHUB_HEADERS = {
    "X-GitHub-Request-Id": "x",
    "x-ratelimit-limit": "5000",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-used": "5000",
    "x-ratelimit-reset": str(NOW_S + 1800),
    "x-ratelimit-resource": "core",
}
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
GITHUB = [
    Sample(
        "github-primary",
        GITHUB_DOCS,
        403,
        (True, "rate_limit", 1800.0, "core"),
        GITHUB_HEADERS,
        {"message": "API rate limit exceeded for user ID 1.", "documentation_url": "https://docs.github.com/rest"},
    ),
    Sample("github-primary-without-a-body", GITHUB_DOCS, 403, (True, "rate_limit", 1800.0, "core"), GITHUB_HEADERS),
    Sample(
        "github-secondary",
        GITHUB_DOCS,
        403,
        (True, "rate_limit", 60.0, "secondary"),
        GITHUB_HEADERS | {"x-ratelimit-remaining": "4900", "retry-after": "60"},
        {"message": SECONDARY, "documentation_url": "https://docs.github.com/rest"},
    ),
    Sample(
        "github-secondary-that-tells-no-wait",
        "https://github.com/KnpLabs/php-github-api/pull/1072",
        403,
        (True, "rate_limit", None, "secondary"),
        GITHUB_HEADERS | {"x-ratelimit-remaining": "14", "x-ratelimit-resource": "search"},
        {"message": SECONDARY, "documentation_url": "https://docs.github.com/rest"},
    ),
    Sample(
        "github-graphql",
        "https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api",
        200,
        (True, "rate_limit", 1800.0, "graphql"),
        GITHUB_HEADERS | {"x-ratelimit-resource": "graphql"},
        {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}]},
    ),
    Sample(
        "github-permission-on-the-last-call",
        "https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api",
        403,
        NOT_LIMITED,
        GITHUB_HEADERS,
        {"message": "Resource not accessible by integration", "documentation_url": "https://docs.github.com/rest"},
    ),
]

GITLAB = [
    Sample(
        "gitlab",
        "https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/",
        429,
        (True, "rate_limit", 30.0, "throttle_authenticated_web"),
        {
            "RateLimit-Limit": "60",
            "RateLimit-Name": "throttle_authenticated_web",
            "RateLimit-Observed": "67",
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(NOW_S + 30),
            "RateLimit-ResetTime": "Mon, 01 Jun 2026 12:00:30 GMT",
            "Retry-After": "30",
        },
        "Retry later\n",
    ),
    Sample(
        "gitlab-reset-of-a-limit-that-was-not-hit",
        "https://gitlab.com/gitlab-org/gitlab/-/issues/199738",
        429,
        (True, "rate_limit", None, None),
        {
            "RateLimit-Limit": "600",
            "RateLimit-Observed": "5",
            "RateLimit-Remaining": "595",
            "RateLimit-Reset": str(NOW_S + 61),
            "RateLimit-ResetTime": "Mon, 01 Jun 2026 12:01:01 GMT",
        },
        {"message": {"error": "This endpoint has been requested too many times. Try again later."}},
    ),
    Sample(
        "gitlab-success",
        "https://gitlab.com/gitlab-org/gitlab/-/issues/217312",
        200,
        NOT_LIMITED,
        {"RateLimit-Remaining": "594", "RateLimit-Reset": str(NOW_S + 60)},
    ),
]

CHATS = [
    Sample(
        "slack",
        "https://docs.slack.dev/apis/web-api/rate-limits",
        429,
        (True, "rate_limit", 30.0, None),
        {"retry-after": "30"},
        {"ok": False, "error": "ratelimited"},
    ),
    Sample(
        "slack-within-a-200",
        "https://docs.slack.dev/reference/methods/chat.postMessage#errors",
        200,
        (True, "rate_limit", None, None),
        {"x-slack-req-id": "x"},
        {"ok": False, "error": "rate_limited"},
    ),
    Sample(
        "slack-scope",
        "https://docs.slack.dev/reference/methods/chat.postMessage#errors",
        200,
        NOT_LIMITED,
        {"x-slack-req-id": "x"},
        {"ok": False, "error": "missing_scope", "needed": "chat:write"},
    ),
    Sample(
        "discord-route",
        "https://docs.discord.com/developers/topics/rate-limits",
        429,
        (True, "rate_limit", 64.57, "user"),
        {
            "Retry-After": "65",
            "X-RateLimit-Limit": "10",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": f"{NOW_S + 64.57:.3f}",
            "X-RateLimit-Reset-After": "64.57",
            "X-RateLimit-Bucket": "abcd1234",
            "X-RateLimit-Scope": "user",
        },
        {"message": "You are being rate limited.", "retry_after": 64.57, "global": False},
    ),
    Sample(
        "discord-global",
        "https://docs.discord.com/developers/topics/rate-limits",
        429,
        (True, "rate_limit", 64.57, "global"),
        {"Retry-After": "65", "X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"},
        {"message": "You are being rate limited.", "retry_after": 64.57, "global": True},
    ),
    Sample(
        "discord-permission",
        "https://docs.discord.com/developers/topics/opcodes-and-status-codes",
        403,
        NOT_LIMITED,
        {"X-RateLimit-Bucket": "abcd1234", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.0"},
        {"message": "Missing Permissions", "code": 50013},
    ),
    Sample(
        "telegram",
        "https://core.telegram.org/bots/api#responseparameters",
        429,
        (True, "rate_limit", 35.0, None),
        {},
        {
            "ok": False,
            "error_code": 429,
            "description": "Too Many Requests: retry after 35",
            "parameters": {"retry_after": 35},
        },
    ),
    Sample(
        "telegram-that-tells-the-wait-in-words",
        "https://core.telegram.org/bots/api#making-requests",
        429,
        (True, "rate_limit", 35.0, None),
        {},
        {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 35"},
    ),
    Sample(
        "telegram-blocked",
        "https://core.telegram.org/bots/api#making-requests",
        403,
        NOT_LIMITED,
        {},
        {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"},
    ),
]

STRIPE_DOCS = "https://docs.stripe.com/rate-limits"
SHOPS = [
    Sample(
        "stripe",
        STRIPE_DOCS,
        429,
        (True, "rate_limit", None, "endpoint-rate"),
        {"Stripe-Rate-Limited-Reason": "endpoint-rate", "stripe-version": "2026-01-28"},
        {"error": {"code": "rate_limit", "type": "invalid_request_error"}},
    ),
    Sample(
        "stripe-lock",
        "https://docs.stripe.com/error-codes#lock-timeout",
        429,
        NOT_LIMITED,
        {"stripe-version": "2026-01-28"},
        {"error": {"code": "lock_timeout", "type": "invalid_request_error"}},
    ),
    Sample(
        "stripe-card",
        "https://docs.stripe.com/error-codes#card-declined",
        402,
        NOT_LIMITED,
        {"stripe-version": "2026-01-28"},
        {"error": {"code": "card_declined", "type": "card_error"}},
    ),
    Sample(
        "shopify-rest",
        "https://github.com/MONEI/Shopify-api-node/issues/135",
        429,
        (True, "rate_limit", 2.0, "requests"),
        {"retry-after": "2.0", "x-shopify-shop-api-call-limit": "40/40", "x-shopid": "1"},
        {"errors": "Exceeded 2 calls per second for api client. Reduce request rates to resume."},
    ),
    Sample(
        "shopify-graphql",
        "https://shopify.dev/docs/api/usage/limits",
        200,
        (True, "rate_limit", 0.08, "cost"),
        {"x-shopid": "1"},
        {
            "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
            "extensions": {
                "cost": {
                    "requestedQueryCost": 502,
                    "actualQueryCost": None,
                    "throttleStatus": {"maximumAvailable": 1000.0, "currentlyAvailable": 498, "restoreRate": 50.0},
                }
            },
        },
    ),
    Sample(
        "shopify-graphql-success",
        "https://github.com/MONEI/Shopify-api-node/issues/489",
        200,
        NOT_LIMITED,
        {},
        {
            "data": {},
            "extensions": {
                "cost": {
                    "requestedQueryCost": 502,
                    "actualQueryCost": 502,
                    "throttleStatus": {"maximumAvailable": 1000, "currentlyAvailable": 498, "restoreRate": 50},
                }
            },
        },
    ),
]

FEEDS = [
    Sample(
        "reddit",
        "https://github.com/praw-dev/praw/issues/2046",
        429,
        (True, "rate_limit", 363.0, None),
        {"x-ratelimit-remaining": "0.0", "x-ratelimit-used": "1000", "x-ratelimit-reset": "363"},
    ),
    Sample(
        "reddit-with-less-than-a-call-left",
        "https://github.com/praw-dev/praw/issues/2046",
        429,
        (True, "rate_limit", 363.0, None),
        {"x-ratelimit-remaining": "0.5", "x-ratelimit-used": "1000", "x-ratelimit-reset": "363"},
    ),
    Sample(
        "reddit-within-a-200",
        "https://github.com/praw-dev/praw/blob/main/praw/exceptions.py",
        200,
        (True, "rate_limit", 541.6, None),
        {},
        {
            "json": {
                "ratelimit": 541.6,
                "errors": [["RATELIMIT", "you are doing that too much. try again in 9 minutes.", "ratelimit"]],
            }
        },
    ),
    Sample(
        "reddit-bad-title",
        "https://github.com/praw-dev/praw/blob/main/praw/exceptions.py",
        200,
        NOT_LIMITED,
        {"x-ratelimit-remaining": "3.0", "x-ratelimit-used": "997", "x-ratelimit-reset": "2"},
        {"json": {"errors": [["TOO_LONG", "this is too long (max: 300)", "title"]]}},
    ),
    Sample(
        "twitter",
        "https://docs.x.com/x-api/fundamentals/rate-limits",
        429,
        (True, "rate_limit", 900.0, None),
        {"x-rate-limit-limit": "900", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(NOW_S + 900)},
        {"title": "Too Many Requests", "detail": "Too Many Requests", "type": "about:blank", "status": 429},
    ),
    Sample(
        "twitter-a-days-calls-of-the-app",
        "https://github.com/plhery/node-twitter-api-v2/issues/495",
        429,
        (True, "rate_limit", 80000.0, "app-24hour"),
        {
            "x-access-level": "read-write",
            "x-rate-limit-remaining": "1079999",
            "x-rate-limit-reset": str(NOW_S + 900),
            "x-app-limit-24hour-remaining": "0",
            "x-app-limit-24hour-reset": str(NOW_S + 80000),
        },
    ),
    Sample(
        "twitter-month",
        "https://docs.x.com/x-api/fundamentals/post-cap",
        429,
        (True, "quota", None, "Monthly"),
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(NOW_S + 900)},
        {"title": "UsageCapExceeded", "detail": "Usage cap exceeded: Monthly product cap", "period": "Monthly"},
    ),
    Sample(
        "twitter-forbidden",
        "https://docs.x.com/x-api/fundamentals/response-codes-and-errors",
        403,
        NOT_LIMITED,
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(NOW_S + 900)},
        {"title": "Forbidden", "type": "https://api.x.com/2/problems/client-forbidden"},
    ),
    Sample(
        "notion",
        "https://developers.notion.com/reference/request-limits",
        429,
        (True, "rate_limit", 4.0, None),
        {"Retry-After": "4"},
        {"object": "error", "status": 429, "code": "rate_limited", "message": "You have been rate limited."},
    ),
    Sample(
        "notion-restricted",
        "https://developers.notion.com/reference/status-codes",
        403,
        NOT_LIMITED,
        {},
        {"object": "error", "status": 403, "code": "restricted_resource"},
    ),
]

AWS_CODES = "https://github.com/boto/botocore/blob/develop/botocore/retries/standard.py"
CLOUDS = [
    Sample(
        "aws-json-within-a-400",
        AWS_CODES,
        400,
        (True, "rate_limit", None, None),
        {"x-amzn-requestid": "x"},
        {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "x"},
    ),
    Sample(
        "aws-route53",
        "https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DNSLimitations.html",
        400,
        (True, "rate_limit", None, None),
        {"x-amzn-requestid": "x"},
        "<ErrorResponse><Error><Type>Sender</Type><Code>PriorRequestNotComplete</Code></Error></ErrorResponse>",
    ),
    Sample(
        "aws-header",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
        429,
        (True, "rate_limit", None, None),
        {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"},
        {"message": "Too many requests, please wait before trying again."},
    ),
    Sample(
        "aws-xml",
        "https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html",
        503,
        (True, "rate_limit", None, None),
        {"x-amz-request-id": "x"},
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
        "</Message></Error>",
    ),
    Sample(
        "aws-a-days-tokens",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/quotas.html",
        429,
        (True, "quota", None, "tokens-day"),
        {"x-amzn-ErrorType": "ThrottlingException"},
        {"message": "Too many tokens per day, please wait before trying again."},
    ),
    Sample(
        "aws-an-object-about-throttling",
        AWS_CODES,
        200,
        NOT_LIMITED,
        {"x-amz-request-id": "x"},
        "S3 answers <Error><Code>SlowDown</Code></Error> when",
    ),
    Sample(
        "aws-denied",
        AWS_CODES,
        400,
        NOT_LIMITED,
        {"x-amzn-requestid": "x"},
        {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "User is not authorized"},
    ),
    Sample(
        "cloudflare-api",
        "https://developers.cloudflare.com/fundamentals/api/reference/limits/",
        429,
        (True, "rate_limit", 120.0, None),
        {
            "X-RateLimit-Limit": "1200",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "Mon, 01 Jun 2026 12:02:00 GMT",
        },
    ),
    Sample(
        "cloudflare-graphql-within-a-200",
        "https://developers.cloudflare.com/analytics/graphql-api/errors/",
        200,
        (True, "rate_limit", 300.0, "budget"),
        {},
        {"data": None, "errors": [{"message": "rate limiter budget depleted, try again after 5 minutes"}]},
    ),
    Sample(
        "cloudflare-edge",
        "https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-1xxx-errors/error-1015/",
        429,
        (True, "rate_limit", 8.0, "ip"),
        {"retry-after": "8", "server": "cloudflare"},
        b"error code: 1015",
    ),
    Sample(
        "cloudflare-blocked",
        "https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-1xxx-errors/error-1020/",
        403,
        NOT_LIMITED,
        {"server": "cloudflare"},
        b"error code: 1020",
    ),
    Sample(
        "binance",
        "https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits",
        429,
        (True, "rate_limit", 17.0, "ip"),
        {"Retry-After": "17", "x-mbx-used-weight-1m": "6100"},
        {"code": -1003, "msg": "Too much request weight used; current limit is 6000 request weight per 1 MINUTE."},
    ),
    Sample(
        "binance-ban",
        "https://github.com/ccxt/ccxt/issues/14639",
        418,
        (True, "rate_limit", 120.228, "ip"),
        {},
        {
            "code": -1003,
            "msg": f"Way too much request weight used; IP banned until {NOW_S * 1000 + 120228}. Please use",
        },
    ),
    Sample(
        "binance-bad-symbol",
        "https://developers.binance.com/docs/binance-spot-api-docs/errors",
        400,
        NOT_LIMITED,
        {"x-mbx-used-weight-1m": "12"},
        {"code": -1121, "msg": "Invalid symbol."},
    ),
    Sample("a-teapot", "https://www.rfc-editor.org/rfc/rfc2324", 418, NOT_LIMITED, {}, "short and stout"),
]

SERVICES = [*GITHUB, *GITLAB, *CHATS, *SHOPS, *FEEDS, *CLOUDS]
