"""ModelService: what the classifiers are, and what they see."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from ..errors import ModelError
from ..v1 import model_pb2, model_pb2_grpc
from . import convert_models
from .backends.base import ModelInfo
from .calls import current
from .catalogues import Catalogues
from .convert import naming
from .desk import Desk
from .errors import NoWorker
from .models import Models
from .reading import aside

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)
SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Raises what is wrong with a request; the interceptor makes statuses of it."""

    def __init__(self, desk: Desk, models: Models, catalogues: Catalogues) -> None:
        self._desk = desk
        self._models = models
        self._catalogues = catalogues

    async def ListModels(  # noqa: N802
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        del request, context
        summaries = [await self._summary(info) for info in self._models.current().values()]
        return model_pb2.ListModelsResponse(models=summaries, default_model=self._models.default())

    async def GetModel(  # noqa: N802
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        del context
        info = self._models.get(request.model)
        return convert_models.model(info, await self._summary(info))

    async def Classify(  # noqa: N802
        self, request: model_pb2.ClassifyRequest, context: Context
    ) -> model_pb2.ClassifyResponse:
        with naming(request):
            order = await aside(current().size, convert_models.classification, request)
            async with self._desk.ticket(order, context.time_remaining()) as ticket:
                return convert_models.classes(await ticket, request)

    async def ListUnits(  # noqa: N802
        self, request: model_pb2.ListUnitsRequest, context: Context
    ) -> model_pb2.ListUnitsResponse:
        del context
        info = self._models.get(request.model)
        return convert_models.units(await self._catalogues.get(info), info, request)

    async def _summary(self, info: ModelInfo) -> model_pb2.ModelSummary:
        try:
            units = await self._catalogues.get(info)
        except NoWorker:  # the rest is known all the same
            units = ()
        except ModelError as error:
            log.error("%s %s: %s", info.name, info.version, error)
            units = ()
        return convert_models.summary(info, units)
