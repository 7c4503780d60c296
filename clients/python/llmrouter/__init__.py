"""Client of llmrouter, which decides for each LLM request which model of which provider to use.

`Client` and `AsyncClient` speak to it over gRPC. The messages that most programs need are here; those of every RPC are
in `llmrouter.v2`.
"""

from llmrouter.aio import AsyncClient
from llmrouter.attempt import AllAttemptsFailed, Attempt, FailedAttempt, Routed, Unreported, Usage
from llmrouter.client import Client
from llmrouter.errors import (
    AlreadyExists,
    BudgetExceeded,
    DeadlineExceeded,
    EtagMismatch,
    FieldViolation,
    InternalError,
    InvalidField,
    LlmrouterError,
    NoEligibleModel,
    NotFound,
    RateLimited,
    RequestTooLarge,
    RoleRequired,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from llmrouter.pages import AsyncPages, Pages
from llmrouter.tokens import AsyncRefreshingToken, RefreshingToken
from llmrouter.v2.audit_pb2 import AdminChange, KeyRead
from llmrouter.v2.byok_pb2 import ProviderKey
from llmrouter.v2.decision_pb2 import Decision, Weights
from llmrouter.v2.health_pb2 import ProviderHealth
from llmrouter.v2.model_pb2 import Model
from llmrouter.v2.power_level_pb2 import BALANCED, ECO, PRECISION, PowerLevel
from llmrouter.v2.provider_pb2 import Provider
from llmrouter.v2.routing_rule_pb2 import RoutingRule
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse, ScoredModel
from llmrouter.v2.settings_pb2 import RoutingConfig, Settings
from llmrouter.v2.usage_pb2 import AttemptFailure, Payer, UsageBucket, UsageRecord, UsageStatus
from llmrouter.v2.usage_service_pb2 import GetUsageRequest, GetUsageResponse, RecordUsageRequest, RecordUsageResponse
from llmrouter.verdict import Verdict
from llmrouter.version import __version__

__all__ = [
    "BALANCED",
    "ECO",
    "PRECISION",
    "AdminChange",
    "AllAttemptsFailed",
    "AlreadyExists",
    "AsyncClient",
    "AsyncPages",
    "AsyncRefreshingToken",
    "Attempt",
    "AttemptFailure",
    "BudgetExceeded",
    "Client",
    "DeadlineExceeded",
    "Decision",
    "EtagMismatch",
    "FailedAttempt",
    "FieldViolation",
    "GetUsageRequest",
    "GetUsageResponse",
    "InternalError",
    "InvalidField",
    "KeyRead",
    "LlmrouterError",
    "Model",
    "NoEligibleModel",
    "NotFound",
    "Pages",
    "Payer",
    "PowerLevel",
    "Provider",
    "ProviderHealth",
    "ProviderKey",
    "RateLimited",
    "RecordUsageRequest",
    "RecordUsageResponse",
    "RefreshingToken",
    "RequestTooLarge",
    "RoleRequired",
    "RouteRequest",
    "RouteResponse",
    "Routed",
    "RoutingConfig",
    "RoutingRule",
    "ScoredModel",
    "Settings",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unreported",
    "Usage",
    "UsageBucket",
    "UsageRecord",
    "UsageStatus",
    "Verdict",
    "Weights",
    "__version__",
]
