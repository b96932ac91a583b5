import skops.io
from ray import serve
from starlette.responses import JSONResponse

from sk_medsiglip.exceptions import ImageReadError


@serve.deployment
class Classifier:
    def __init__(self):
        types = skops.io.get_untrusted_types(file="model.skops")
        self.pipe = skops.io.load("model.skops", trusted=types)

    async def __call__(self, request):
        try:
            return self.pipe.predict_proba([await request.body()])[0].tolist()
        except ImageReadError as error:
            return JSONResponse({"detail": error.reason}, 422)


app = Classifier.bind()
