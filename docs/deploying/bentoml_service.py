import bentoml
import skops.io
from pydantic import Base64Bytes

from sk_medsiglip.exceptions import ImageReadError

types = skops.io.get_untrusted_types(file="model.skops")


@bentoml.service
class Classifier:
    def __init__(self):
        self.pipe = skops.io.load("model.skops", trusted=types)

    @bentoml.api
    def predict(self, image: Base64Bytes) -> list[float]:
        try:
            return self.pipe.predict_proba([image])[0].tolist()
        except ImageReadError as error:
            raise bentoml.exceptions.InvalidArgument(error.reason) from None
