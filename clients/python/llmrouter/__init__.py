"""Client of llmrouter, which decides for each LLM request which model of which provider to use.

`Client` and `AsyncClient` speak to it over gRPC. The messages of all RPCs are in `llmrouter.v2`; the ones that most
programs need are here too.
"""

from llmrouter.aio import AsyncClient
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
    RoleRequired,
    Unauthenticated,
    Unavailable,
)
from llmrouter.v2.power_level_pb2 import BALANCED, ECO, PRECISION, PowerLevel
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse, ScoredModel
from llmrouter.v2.usage_service_pb2 import GetUsageRequest, GetUsageResponse, RecordUsageRequest, RecordUsageResponse

__all__ = [
    "BALANCED",
    "ECO",
    "PRECISION",
    "AlreadyExists",
    "AsyncClient",
    "BudgetExceeded",
    "Client",
    "DeadlineExceeded",
    "EtagMismatch",
    "FieldViolation",
    "GetUsageRequest",
    "GetUsageResponse",
    "InternalError",
    "InvalidField",
    "LlmrouterError",
    "NoEligibleModel",
    "NotFound",
    "PowerLevel",
    "RateLimited",
    "RecordUsageRequest",
    "RecordUsageResponse",
    "RoleRequired",
    "RouteRequest",
    "RouteResponse",
    "ScoredModel",
    "Unauthenticated",
    "Unavailable",
]
